"""A folder of recordings to clips: in the naming of known corpora, with a folder per class, or flat."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mifuse.clips import databases
from mifuse.clips.corpora import CORPORA, Corpus
from mifuse.clips.databases import AUDFORMAT
from mifuse.clips.detection import (
    FILE_NAMES,
    FLAT,
    FOLDERS,
    PATTERN,
    class_depth,
    detect,
    folder_emotion,
    label_of,
    matcher,
    stem,
    word,
)
from mifuse.clips.labels import LABELS, Naming, folded
from mifuse.clips.manifest import Clip
from mifuse.errors import ManifestError
from mifuse_runtime import files

# Lossless first: of two copies of a clip the first kind is taken.
SUFFIXES = (*files.SUFFIXES, *files.FFMPEG_SUFFIXES)
NOT_TEXT = "a name that is not UTF-8: rename it"
NOT_NAMED = "not in the corpus's naming"
HIDDEN = ("__MACOSX", "$RECYCLE.BIN", "@eaDir")  # folders of systems, beside those that begin with a dot
EACH = "each"  # channel: rows for every one
KNOWN = (*CORPORA, AUDFORMAT)  # namings that say for certain what an emotion is
NAMES = (*KNOWN, FOLDERS, FILE_NAMES, FLAT)
NO_EMOTION = (
    "other",
    "no agreement",
    "not in the label files",
    databases.NO_LABEL,
)  # what corpora call clips without one


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Args:
        corpus: one of `NAMES`, or several of them with "and" between.
        clips: those with a label, or all, unlabelled, of a flat folder.
        mapping: emotion of the corpus -> label, None when left out.
        left_out: reason or emotion -> number of files.
        lost: recordings among them that cannot be read here, or say no emotion where others do.
        counts: clips of each naming.
    """

    corpus: str
    clips: tuple[Clip, ...]
    mapping: Mapping[str, str | None]
    left_out: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

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
    unread = (*files.FFMPEG_SUFFIXES, NOT_TEXT)
    lost = sum(count for reason, count in left_out.items() if reason in unread)
    naming = _widened(naming or Naming(LABELS))
    if label_from:
        corpus = PATTERN
    if corpus is None and databases.is_readable(folder):
        corpus = AUDFORMAT
    parts = {corpus: recordings} if corpus else detect(folder, recordings, naming)
    speaker = _searched(folder, speaker_from, "--speaker-from")
    clips: list[Clip] = []
    mapping: dict[str, str | None] = {}
    counts: Counter[str] = Counter()
    for part, named_so in parts.items():
        before = left_out[NOT_NAMED]
        found = list(_emotions(part, folder, named_so, naming, label_from, left_out))
        lost += left_out[NOT_NAMED] - before
        here = _mapping(part, found, naming)
        mapping |= here
        for emotion, clip in found:
            label = here.get(emotion)
            if label or part == FLAT:
                name = clip.path.relative_to(folder).as_posix()
                who = speaker(clip.path) if speaker_from else clip.speaker
                clips.append(replace(clip, name=name, label=label, speaker=who or None))
                counts[part] += 1
            else:
                left_out[emotion or ("no class folder" if part == FOLDERS else "no emotion in the name")] += 1
                lost += part not in KNOWN and folded(emotion) not in naming.renamed
    _check_renamed(mapping, naming, " and ".join(parts))
    if not clips:
        raise ManifestError(
            f"{folder}: no clip has one of the labels {', '.join(naming.labels or ())} (found "
            f"{counts_text(left_out)}): name them with --labels or --map OLD=NEW, or choose another --corpus"
        )
    kept = {reason: count for reason, count in left_out.items() if count}
    return Scan(" and ".join(parts), tuple(clips), mapping, kept, lost, dict(counts))


def _emotions(  # noqa: PLR0917, one call site
    part: str,
    folder: Path,
    recordings: Sequence[Path],
    naming: Naming,
    label_from: str | None,
    left_out: Counter[str],
) -> Iterator[tuple[str, Clip]]:
    """Emotion and clip of each recording that is named in one way."""
    if part in KNOWN:
        listed = (
            databases.labelled(folder, recordings, naming, left_out)
            if part == AUDFORMAT
            else _corpus_clips(CORPORA[part], part, folder, recordings, left_out)
        )
        for emotion, clip in listed:
            yield emotion, replace(clip, extra={**clip.extra, "emotion": emotion})
        return
    named = _namer(part, folder, recordings, naming, label_from)
    for file in recordings:
        yield named(file), Clip("", file)


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
        return lambda file: word(file, naming)
    depth = class_depth(folder, recordings, naming)
    return lambda file: folder_emotion(folder, file, naming, depth)


def _is_text(path: str) -> bool:
    """Whether a manifest can hold a path: Linux has names of any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


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
            if suffix in SUFFIXES and not os.path.isfile(os.path.join(parent, name)):  # noqa: PTH113, PTH118
                left_out["no file (a pipe, a broken link)"] += 1
            elif suffix in SUFFIXES and not _is_text(os.path.join(parent, name)):  # noqa: PTH118
                left_out[NOT_TEXT] += 1
            elif hidden or name.startswith("."):
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


def _widened(naming: Naming) -> Naming:
    """The naming with what it renames to in its set: `--map` can add labels."""
    if naming.labels is None:
        return naming
    added = {new for new in naming.renamed.values() if new and Naming(naming.labels).label(new) is None}
    return naming.over(sorted({*naming.labels, *(str(Naming().label(new)) for new in added)}))


def _mapping(part: str, found: Sequence[tuple[str, Clip]], naming: Naming) -> dict[str, str | None]:
    """The label of each emotion of a naming, None of those that are left out."""
    if part == FLAT:
        return {}
    emotions: Iterable[str] = dict.fromkeys(emotion for emotion, _ in found if emotion)
    if part in CORPORA:
        emotions = CORPORA[part].codes.values()
    name = naming.label if part in KNOWN else lambda word: label_of(word, naming)
    return {
        emotion: None if emotion in NO_EMOTION and emotion not in naming.renamed else name(emotion) or None
        for emotion in emotions
    }


def _check_renamed(mapping: Mapping[str, str | None], naming: Naming, corpus: str) -> None:
    known = set(map(folded, mapping))
    for emotion, label in naming.renamed.items():
        if emotion not in known:
            has = ", ".join(mapping) or "none, its clips are unlabelled"
            raise ManifestError(f"--map {emotion}={label}: {corpus} has no such emotion (it has: {has})")


def _corpus_clips(
    corpus: Corpus, name: str, folder: Path, files: Sequence[Path], left_out: Counter[str]
) -> Iterator[tuple[str, Clip]]:
    """Emotion and clip of each file in the corpus's naming; copies under the same name once."""
    pattern = matcher(corpus)
    listed = _listed(corpus, name, folder) if corpus.label_line else {}
    seen = set()
    for file in sorted(files, key=lambda file: SUFFIXES.index(file.suffix.lower())):
        match = pattern.search(stem(file))
        if match is None or match[0].lstrip("/") in seen:
            left_out[NOT_NAMED if match is None else "a copy of another clip"] += 1
            continue
        groups = match.groupdict()
        if listed:
            groups |= {
                name: text for name, text in listed.get(corpus.key.format_map(groups), {}).items() if text
            }
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
    listed: dict[str, dict[str, str]] = {}
    sets = (corpus.set_files, "", corpus.set_line) if corpus.set_files else None
    for files_, file_pattern, line_pattern in filter(
        None, [sets, (corpus.label_files, corpus.label_name, corpus.label_line)]
    ):
        for file in sorted(folder.glob(files_)):
            named = re.match(file_pattern, file.name)
            # errors: an odd byte in a rater's comment must not lose the file; lines that count are ASCII.
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if named else []:
                if named and (match := re.match(line_pattern, line)):
                    groups = named.groupdict() | {
                        name: text for name, text in match.groupdict().items() if text
                    }
                    listed.setdefault(corpus.key.format_map(groups), {}).update(groups)
    if not any("emotion" in groups for groups in listed.values()):
        pattern = corpus.label_files.removeprefix("**/")
        raise ManifestError(
            f"{folder}: {name} keeps its labels in {pattern}, not found: give the corpus's top folder"
        )
    return listed
