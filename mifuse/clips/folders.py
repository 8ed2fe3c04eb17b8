"""A folder of recordings to clips: in a known corpus's naming, with a folder per class, or flat."""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mifuse.clips.corpora import CORPORA, Corpus
from mifuse.clips.labels import LABELS, canonical
from mifuse.clips.manifest import Clip, write_manifest
from mifuse.errors import ManifestError

# Read by libsndfile; lossless first: of two copies of a clip the first kind is taken.
SUFFIXES = (
    ".wav",
    ".flac",
    ".aif",
    ".aiff",
    ".aifc",
    ".au",
    ".caf",
    ".w64",
    ".rf64",
    ".ogg",
    ".opus",
    ".mp3",
)
FOLDERS, FLAT = "folders", "flat"
NAMES = (*CORPORA, FOLDERS, FLAT)


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Args:
        corpus: one of `NAMES`.
        clips: those with a label, or all, unlabelled, of a flat folder.
        mapping: emotion of the corpus -> label, None when left out.
        left_out: reason or emotion -> number of files.
    """

    corpus: str
    clips: tuple[Clip, ...]
    mapping: Mapping[str, str | None]
    left_out: Mapping[str, int] = field(default_factory=dict)


def scan(folder: Path, corpus: str | None = None, overrides: Mapping[str, str] | None = None) -> Scan:
    """Find and name the clips below a folder.

    Args:
        corpus: one of `NAMES`; None finds out.
        overrides: emotion -> label, over the default mapping; an empty label leaves the emotion out.

    Raises:
        ManifestError: no audio, no or several corpora fit, label files are missing, nothing is left.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links below it stay as the user made them
    files = _audio_files(folder)
    overrides = overrides or {}
    corpus = corpus or _detect(folder, files, overrides)
    if corpus in CORPORA:
        found = list(_corpus_clips(CORPORA[corpus], corpus, folder, files))
        left_out = Counter({"not in the corpus's naming, or a copy": len(files) - len(found)})
        emotions: Iterable[str] = CORPORA[corpus].codes.values()
    else:
        found = [(_folder_emotion(folder, file, overrides), Clip("", file)) for file in files]
        left_out = Counter()
        emotions = dict.fromkeys(emotion for emotion, _ in found if emotion) if corpus == FOLDERS else ()
    mapping = _mapping(emotions, overrides, corpus)
    clips = []
    for emotion, clip in found:
        label = mapping.get(emotion)
        if label or corpus == FLAT:
            name = clip.path.relative_to(folder).as_posix()
            extra = {**clip.extra, "emotion": emotion} if corpus in CORPORA else {}
            clips.append(replace(clip, name=name, label=label, extra=extra))
        else:
            left_out[emotion or "no class folder"] += 1
    if not clips:
        raise ManifestError(
            f"{folder}: no clip has one of the labels {', '.join(LABELS)} (found {_counts(left_out)}): "
            "name them with --map EMOTION=LABEL, or choose another --corpus"
        )
    return Scan(corpus, tuple(clips), mapping, {reason: n for reason, n in left_out.items() if n})


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _audio_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder: name the folder that holds the recordings")
    other: Counter[str] = Counter()
    files = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million Path objects are slow
            if name.startswith("."):  # among them the ._ twins of macOS archives
                continue
            if suffix in SUFFIXES:
                files.append(Path(parent, name))
            else:
                other[suffix or "no suffix"] += 1
    if not files:
        found = f"found {_counts(dict(other.most_common(3)))}" if other else "it is empty"
        raise ManifestError(f"{folder}: no audio files ({found}): convert them to WAV or FLAC")
    return files


def _stem(file: Path) -> str:
    return file.with_suffix("").as_posix()


def _matcher(corpus: Corpus) -> re.Pattern[str]:
    return re.compile(rf"(?:^|/)(?:{corpus.pattern})$")


def _detect(folder: Path, files: Sequence[Path], overrides: Mapping[str, str]) -> str:
    """The one corpus whose naming fits more than half of the files; else whether folders are classes."""
    stems = [_stem(file) for file in files[:: len(files) // 2000 + 1]]  # enough to tell
    matchers = {name: _matcher(corpus) for name, corpus in CORPORA.items()}
    hits = {
        name: sum(matcher.search(stem) is not None for stem in stems) for name, matcher in matchers.items()
    }
    fitting = [name for name, count in hits.items() if 2 * count > len(stems)]
    if len(fitting) > 1:
        raise ManifestError(
            f"{folder}: the names fit {' and '.join(fitting)}: say which with --corpus {fitting[0]}"
        )
    if fitting:
        return fitting[0]
    emotions = {_folder_emotion(folder, file, overrides) for file in files}
    return FOLDERS if any(emotion in overrides or _label(emotion) for emotion in emotions) else FLAT


def _folder_emotion(folder: Path, file: Path, overrides: Mapping[str, str]) -> str:
    """The nearest folder that names an emotion, else the file's own folder; empty at the top."""
    parts = [part.lower() for part in reversed(file.parent.relative_to(folder).parts)]
    named = [part for part in parts if part in overrides or _label(part)]
    return (named or parts or [""])[0]


def _label(emotion: str) -> str | None:
    """The label of an emotion's name; one letter is too little to call a folder an emotion."""
    return canonical(emotion) if len(emotion) > 1 else None


def _mapping(emotions: Iterable[str], overrides: Mapping[str, str], corpus: str) -> dict[str, str | None]:
    mapping = {emotion: _label(emotion) for emotion in emotions}
    for emotion, label in overrides.items():
        if emotion not in mapping:
            known = ", ".join(mapping) or "none, its clips are unlabelled"
            raise ManifestError(f"--map {emotion}={label}: {corpus} has no such emotion (it has: {known})")
        mapping[emotion] = canonical(label)
        if label and not mapping[emotion]:
            raise ManifestError(f"--map {emotion}={label}: {label!r} is no label: use {', '.join(LABELS)}")
    return mapping


def _corpus_clips(
    corpus: Corpus, name: str, folder: Path, files: Sequence[Path]
) -> Iterator[tuple[str, Clip]]:
    """Emotion and clip of each file in the corpus's naming; copies under the same name once."""
    matcher = _matcher(corpus)
    listed = _listed(corpus, name, folder) if corpus.label_line else {}
    seen = set()
    for file in sorted(files, key=lambda file: SUFFIXES.index(file.suffix.lower())):
        match = matcher.search(_stem(file))
        if match is None or match[0].lstrip("/") in seen:
            continue
        groups = match.groupdict() | listed.get(match.groupdict().get("key", ""), {})
        code = groups.pop("emotion", "")
        emotion = corpus.codes.get(code, "not in the label files" if corpus.label_line else code)
        speaker = corpus.speaker.format_map({"speaker": "", **groups})
        known = speaker and speaker.lower() != "unknown"
        extra = {key: value for key, value in groups.items() if key not in ("key", "speaker")}
        seen.add(match[0].lstrip("/"))
        yield (
            emotion,
            Clip(
                "",
                file,
                speaker=f"{name}-{speaker}" if known else None,
                language=corpus.language,
                extra=extra,
            ),
        )


def _listed(corpus: Corpus, name: str, folder: Path) -> dict[str, dict[str, str]]:
    """Groups of each line of the label files, by key."""
    listed = {}
    line_pattern = re.compile(corpus.label_line)
    for file in sorted(folder.glob(corpus.label_files)):
        # errors: an odd byte in a rater's comment must not lose the file; lines that count are ASCII.
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := line_pattern.match(line):
                listed[match["key"]] = match.groupdict()
    if not listed:
        pattern = corpus.label_files.removeprefix("**/")
        raise ManifestError(
            f"{folder}: {name} keeps its labels in {pattern}, not found: give the corpus's top folder"
        )
    return listed


def prepare(
    folder: str | Path,
    output: str | Path,
    corpus: str | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
    test: Iterable[str] | float | None = None,
    seed: int = 0,
    force: bool = False,
) -> Scan:
    """Write the manifest `output` of the clips below a folder; what `scan` found, with `split` where asked.

    Args:
        corpus, overrides: as of `scan`.
        test: speakers whose clips are of the split `test`, or their share; None: no split.
        force: replace the manifest that is there.

    Raises:
        ManifestError: as of `scan` and `split_speakers`, or `output` exists.
    """
    output = Path(output)
    if output.exists() and not force:
        raise ManifestError(f"{output} exists: choose another name, or add --force to replace it")
    found = scan(Path(folder), corpus, overrides)
    if test:
        found = replace(found, clips=split_speakers(found.clips, test, seed))
    write_manifest(output, found.clips)
    return found


def split_speakers(clips: Sequence[Clip], test: Iterable[str] | float, seed: int = 0) -> tuple[Clip, ...]:
    """Fill the split column so that no speaker is on both sides.

    Args:
        test: the test speakers, or the share of clips that they should make up, chosen by `seed`.

    Raises:
        ManifestError: clips without speaker, unknown speakers, or nothing left on one side.
    """
    counts = Counter(clip.speaker for clip in clips)
    if None in counts:
        raise ManifestError(f"{counts[None]} clips have no speaker: a speaker-disjoint split needs one each")
    speakers = sorted(filter(None, counts))
    if isinstance(test, float):
        random.Random(seed).shuffle(speakers)  # noqa: S311 - no secret
        sums = [0]
        for speaker in speakers:
            sums.append(sums[-1] + counts[speaker])
        # At least one speaker on each side.
        cut = min(range(1, len(speakers)), key=lambda n: abs(sums[n] - test * len(clips)), default=0)
        chosen = set(speakers[:cut])
    else:
        chosen = set(test)
        if unknown := chosen - set(speakers):
            raise ManifestError(f"no speaker {sorted(unknown)[0]!r}: use some of {', '.join(speakers)}")
    if not 0 < len(chosen) < len(speakers):
        raise ManifestError(f"{len(chosen)} of {len(speakers)} speakers in test: leave some on each side")
    return tuple(replace(clip, split="test" if clip.speaker in chosen else "adapt") for clip in clips)
