"""A folder of recordings to clips: in a known corpus's naming, with a folder per class, or flat."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mifuse.clips.corpora import CORPORA, Corpus
from mifuse.clips.labels import LABELS, Naming, folded
from mifuse.clips.manifest import Clip
from mifuse.errors import ManifestError
from mifuse_runtime import files

# Lossless first: of two copies of a clip the first kind is taken.
SUFFIXES = (*files.SUFFIXES, *files.FFMPEG_SUFFIXES)
NOT_NAMED = "not in the corpus's naming"
HIDDEN = ("__MACOSX", "$RECYCLE.BIN", "@eaDir")  # folders of systems, beside those that begin with a dot
FOLDERS, FLAT = "folders", "flat"
EACH = "each"  # channel: rows for every one
FILE_NAMES, PATTERN = "names", "pattern"  # a word of the name says the emotion; --label-from says it
NAMES = (*CORPORA, FOLDERS, FILE_NAMES, FLAT)
NO_EMOTION = ("other", "no agreement", "not in the label files")  # what corpora call clips without one
# Names that a weekday, a person or a code of a corpus may have, too: no class folders.
UNSURE = {"sa", "so", "ang", "hap", "exc", "neu", "a", "h", "n", "s"}


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Args:
        corpus: one of `NAMES`.
        clips: those with a label, or all, unlabelled, of a flat folder.
        mapping: emotion of the corpus -> label, None when left out.
        left_out: reason or emotion -> number of files.
        lost: recordings among them that cannot be read here, or say no emotion where others do.
    """

    corpus: str
    clips: tuple[Clip, ...]
    mapping: Mapping[str, str | None]
    left_out: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0

    @property
    def mostly_lost(self) -> bool:
        """Whether more recordings were left out than taken that nobody asked to leave out."""
        return self.lost > len(self.clips)


def scan(
    folder: Path,
    corpus: str | None = None,
    naming: Naming | None = None,
    speaker_from: str | None = None,
    label_from: str | None = None,
) -> Scan:
    """Find and name the clips below a folder; every file that is no clip is counted under a reason.

    Args:
        corpus: one of `NAMES`; None finds out.
        naming: of the labels; what it renames to joins its set. None: the four. Without a set: all that the
            corpus names.
        speaker_from, label_from: patterns searched in each path below the folder; their first group, or all
            of the match, is the speaker or the emotion.

    Raises:
        ManifestError: no audio, no or several corpora fit, label files are missing, nothing is left.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links below it stay as the user made them
    left_out: Counter[str] = Counter()
    recordings = _audio_files(folder, left_out)
    lost = sum(count for reason, count in left_out.items() if reason in files.FFMPEG_SUFFIXES)
    naming = _widened(naming or Naming(LABELS))
    if label_from:
        corpus = PATTERN
    corpus = corpus or _detect(folder, recordings, naming)
    emotions: Iterable[str] = ()
    if corpus in CORPORA:
        found = list(_corpus_clips(CORPORA[corpus], corpus, folder, recordings, left_out))
        lost += left_out[NOT_NAMED]
        emotions = CORPORA[corpus].codes.values()
    else:
        named = _namer(corpus, folder, recordings, naming, label_from)
        found = [(named(file), Clip("", file)) for file in recordings]
        emotions = dict.fromkeys(emotion for emotion, _ in found if emotion) if corpus != FLAT else ()
    mapping = _mapping(emotions, naming, corpus)
    speaker = _searched(folder, speaker_from, "--speaker-from")
    clips = []
    for emotion, clip in found:
        label = mapping.get(emotion)
        if label or corpus == FLAT:
            name = clip.path.relative_to(folder).as_posix()
            extra = {**clip.extra, "emotion": emotion} if corpus in CORPORA else {}
            who = speaker(clip.path) if speaker_from else clip.speaker
            clips.append(replace(clip, name=name, label=label, extra=extra, speaker=who or None))
        else:
            reason = emotion or ("no class folder" if corpus == FOLDERS else "no emotion in the name")
            left_out[reason] += 1
            lost += corpus not in CORPORA and folded(emotion) not in naming.renamed
    if not clips:
        raise ManifestError(
            f"{folder}: no clip has one of the labels {', '.join(naming.labels or ())} (found "
            f"{counts_text(left_out)}): name them with --labels or --map OLD=NEW, or choose another --corpus"
        )
    kept = {reason: count for reason, count in left_out.items() if count}
    return Scan(corpus, tuple(clips), mapping, kept, lost)


def _searched(folder: Path, pattern: str | None, option: str) -> Callable[[Path], str]:
    """What a pattern finds in a path below the folder, as POSIX writes it; empty without."""
    try:
        compiled = re.compile(pattern or "$^")
    except re.error as error:
        raise ManifestError(f"{option} {pattern!r}: not a regular expression ({error})") from error

    def search(file: Path) -> str:
        match = compiled.search(file.relative_to(folder).as_posix())
        return (match[1] if match and compiled.groups else match[0] if match else "") or ""

    return search


def _namer(
    corpus: str,
    folder: Path,
    recordings: Sequence[Path],
    naming: Naming,
    label_from: str | None,
) -> Callable[[Path], str]:
    """What says the emotion of a file."""
    if corpus == PATTERN:
        search = _searched(folder, label_from, "--label-from")
        return lambda file: search(file).lower()
    if corpus == FILE_NAMES:
        return lambda file: _word(file, naming)
    depth = _class_depth(folder, recordings, naming)
    return lambda file: _folder_emotion(folder, file, naming, depth)


def counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _audio_files(folder: Path, left_out: Counter[str]) -> list[Path]:
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder: name the folder that holds the recordings")
    found = []
    for parent, folders, names in os.walk(folder):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        left_out["linked folder, not followed"] += len(linked)
        folders.sort()
        hidden = any(
            part.startswith(".") or part in HIDDEN for part in Path(parent).relative_to(folder).parts
        )
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million Path objects are slow
            if hidden or name.startswith("."):
                left_out["hidden or deleted (._, .Trashes, __MACOSX)"] += 1
            elif suffix in files.SUFFIXES:
                found.append(Path(parent, name))
            elif suffix in files.FFMPEG_SUFFIXES:
                if files.named_file(Path(parent, name)):
                    found.append(Path(parent, name))
                else:
                    left_out[suffix] += 1
            else:
                left_out[suffix or "no suffix"] += 1
    if not found:
        counts = dict(left_out.most_common(3))
        what = f"found {counts_text(counts)}" if any(counts.values()) else "it is empty"
        raise ManifestError(f"{folder}: no audio files ({what}): convert them to WAV or FLAC")
    return found


def _stem(file: Path) -> str:
    return file.with_suffix("").as_posix()


def _matcher(corpus: Corpus) -> re.Pattern[str]:
    return re.compile(rf"(?:^|/)(?:{corpus.pattern})$")


def _detect(folder: Path, files: Sequence[Path], naming: Naming) -> str:
    """The one corpus whose naming fits more than half of the files; else whether folders are classes."""
    stems = [_stem(file) for file in files[:: len(files) // 2000 + 1]]  # enough to see it
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
    if len({label for file in files for label in _folder_labels(folder, file, naming)}) > 1:
        return FOLDERS
    if all(_folder_labels(folder, file, naming) for file in files):
        return FOLDERS
    words = [_word(file, naming) for file in files]
    if 2 * sum(map(bool, words)) > len(files) and len({_label(word, naming) for word in words if word}) > 1:
        return FILE_NAMES
    return FLAT


def _folder_labels(folder: Path, file: Path, naming: Naming) -> list[str]:
    """The emotions that folders above a file name."""
    parts = file.parent.relative_to(folder).parts
    return [label or folded(part) for part in parts if (label := _label(part, naming)) is not None]


def _class_depth(folder: Path, files: Sequence[Path], naming: Naming) -> int | None:
    """Which folder, counted from the top, is the class: the one that most often names an emotion."""
    depths: Counter[int] = Counter()
    for file in files:
        for depth, part in enumerate(file.parent.relative_to(folder).parts):
            depths[depth] += _label(part, naming) is not None
    return max(depths, key=lambda depth: depths[depth], default=None) if any(depths.values()) else None


def _folder_emotion(folder: Path, file: Path, naming: Naming, depth: int | None) -> str:
    """The nearest folder that names an emotion, else the one where classes are; empty at the top."""
    parts = [part.lower() for part in file.parent.relative_to(folder).parts]
    named = [part for part in reversed(parts) if _label(part, naming) is not None]
    if named or depth is None:
        return (named or parts[-1:] or [""])[0]
    return parts[depth] if depth < len(parts) else ""


def _word(file: Path, naming: Naming) -> str:
    """The one word of a file's name that is an emotion; empty without or with several."""
    stem = unicodedata.normalize("NFC", file.stem).lower()
    words = {word for word in re.split(r"[\W\d_]+", stem) if _label(word, naming) is not None}
    return words.pop() if len(words) == 1 else ""


def _widened(naming: Naming) -> Naming:
    """The naming with what it renames to in its set: `--map` can add labels."""
    if naming.labels is None:
        return naming
    added = {new for new in naming.renamed.values() if new and Naming(naming.labels).label(new) is None}
    return naming.over(sorted({*naming.labels, *(str(Naming().label(new)) for new in added)}))


def _label(word: str, naming: Naming) -> str | None:
    """The label that a folder or a part of a name says; a code is too little, and without a set of labels
    only what is known to be an emotion counts."""
    name = folded(word)
    if name not in naming.renamed and (
        name in UNSURE or (naming.labels is None and name not in naming.aliases)
    ):
        return None
    return naming.label(word)


def _mapping(emotions: Iterable[str], naming: Naming, corpus: str) -> dict[str, str | None]:
    name = naming.label if corpus in CORPORA else lambda word: _label(word, naming)
    mapping = {
        emotion: None if emotion in NO_EMOTION and emotion not in naming.renamed else name(emotion) or None
        for emotion in emotions
    }
    known = set(map(folded, mapping))
    for emotion, label in naming.renamed.items():
        if emotion not in known:
            has = ", ".join(mapping) or "none, its clips are unlabelled"
            raise ManifestError(f"--map {emotion}={label}: {corpus} has no such emotion (it has: {has})")
    return mapping


def _corpus_clips(
    corpus: Corpus, name: str, folder: Path, files: Sequence[Path], left_out: Counter[str]
) -> Iterator[tuple[str, Clip]]:
    """Emotion and clip of each file in the corpus's naming; copies under the same name once."""
    matcher = _matcher(corpus)
    listed = _listed(corpus, name, folder) if corpus.label_line else {}
    seen = set()
    for file in sorted(files, key=lambda file: SUFFIXES.index(file.suffix.lower())):
        match = matcher.search(_stem(file))
        if match is None or match[0].lstrip("/") in seen:
            left_out[NOT_NAMED if match is None else "a copy of another clip"] += 1
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
