"""How recordings are named: as one corpus or several, by folders or words that say the emotion, or not."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mifuse.clips.corpora import CORPORA, Corpus
from mifuse.clips.labels import Naming, folded
from mifuse.errors import ManifestError

FOLDERS, FLAT = "folders", "flat"
FILE_NAMES, PATTERN = "names", "pattern"  # a word of the name says the emotion; --label-from says it
# Names that a weekday, a person or a code of a corpus may have, too: no class folders.
UNSURE = {"sa", "so", "ang", "hap", "exc", "neu", "a", "h", "n", "s"}
FILLERS = {"audio", "clips", "emotion", "files", "recordings", "samples", "speech", "voice", "wav", "wavs"}
SAMPLE = 2000  # files that are enough to see how all are named
CLEAR = 0.95  # share of them that leaves no doubt
FEW = 0.05  # of the files of a folder: fewer that look like a corpus are taken for chance


def detect(folder: Path, files: Sequence[Path], naming: Naming) -> dict[str, list[Path]]:
    """The files of each naming, several of them where sub-folders are corpora of their own.

    Raises:
        ManifestError: names fit several corpora.
    """
    hits = _hits(files)
    for name, count in hits.items():
        if count >= CLEAR and len([one for one in hits.values() if one > 0.5]) == 1:
            return {name: list(files)}
    parts = _by_folder(folder, files)
    rest = parts.pop("", [])
    if parts and rest:
        named = _one_naming(folder, rest, naming)
        if named in (FOLDERS, FILE_NAMES):
            return {**parts, named: rest}
    if len(parts) > 1:
        # Of none: they are counted, not taken for unlabelled clips among labelled ones.
        return {**parts, next(iter(parts)): parts[next(iter(parts))] + rest}
    return {_one_naming(folder, files, naming): list(files)}


def _by_folder(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of each corpus, those of none under the empty name; the first folder that differs decides."""
    groups: dict[str, list[Path]] = {}
    inside = [file.relative_to(folder).parts for file in files]
    depth = 0
    while all(len(parts) > depth + 1 for parts in inside) and len({parts[depth] for parts in inside}) == 1:
        depth += 1
    for file, parts in zip(files, inside, strict=True):
        groups.setdefault(parts[depth] if len(parts) > depth + 1 else "", []).append(file)
    found: dict[str, list[Path]] = {}
    for group in groups.values():
        for name, part in _corpora_of(folder, group).items():
            found.setdefault(name, []).extend(part)
    return found


def _corpora_of(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """The corpus of a folder's files, by most of them; or of each, where several are mixed."""
    hits = _hits(files)
    name = _fitting(folder, hits)
    if name:
        return {name: list(files)}
    likely = [name for name in sorted(hits, key=lambda name: -hits[name]) if hits[name] >= FEW]
    matchers = {name: matcher(CORPORA[name]) for name in likely}
    found: dict[str, list[Path]] = {}
    for file in files:
        name = next((name for name in likely if matchers[name].search(stem(file))), "")
        found.setdefault(name, []).append(file)
    return found


def _hits(files: Sequence[Path]) -> dict[str, float]:
    """Share of the files that each corpus's naming fits."""
    stems = [stem(file) for file in files[:: len(files) // SAMPLE + 1]]
    return {
        name: sum(matcher(corpus).search(text) is not None for text in stems) / max(1, len(stems))
        for name, corpus in CORPORA.items()
    }


def _fitting(folder: Path, hits: dict[str, float]) -> str:
    fitting = [name for name, share in hits.items() if share > 0.5]
    if len(fitting) > 1:
        raise ManifestError(
            f"{folder}: the names fit {' and '.join(fitting)}: say which with --corpus {fitting[0]}"
        )
    return fitting[0] if fitting else ""


def _one_naming(folder: Path, files: Sequence[Path], naming: Naming) -> str:
    """The one corpus whose naming fits more than half of the files; else whether folders are classes."""
    name = _fitting(folder, _hits(files))
    if name:
        return name
    if len({label for file in files for label in folder_labels(folder, file, naming)}) > 1:
        return FOLDERS
    if all(folder_labels(folder, file, naming) for file in files):
        return FOLDERS
    words = [word(file, naming) for file in files]
    if 2 * sum(map(bool, words)) > len(files) and len({label_of(word, naming) for word in words if word}) > 1:
        return FILE_NAMES
    return FLAT


def stem(file: Path) -> str:
    return file.with_suffix("").as_posix()


def matcher(corpus: Corpus) -> re.Pattern[str]:
    return re.compile(rf"(?:^|/)(?:{corpus.pattern})$")


def folder_labels(folder: Path, file: Path, naming: Naming) -> list[str]:
    """The emotions that folders above a file name."""
    parts = _plain(folder, file, naming)
    return [label or folded(part) for part in parts if (label := label_of(part, naming)) is not None]


def _plain(folder: Path, file: Path, naming: Naming) -> list[str]:
    """The folders above a file; of `01_Angry` and `happy_speech` the word, where that is an emotion."""
    parts = []
    for part in file.parent.relative_to(folder).parts:
        if label_of(part, naming) is None:
            text = unicodedata.normalize("NFC", part)
            words = [word for word in re.split(r"[\W\d_]+", text) if word and word.lower() not in FILLERS]
            if len(words) == 1 and label_of(words[0], naming) is not None:
                part = words[0]  # noqa: PLW2901
        parts.append(part)
    return parts


def class_depth(folder: Path, files: Sequence[Path], naming: Naming) -> int | None:
    """Which folder, counted from the top, is the class: the one that most often names an emotion."""
    depths: Counter[int] = Counter()
    for file in files:
        for depth, part in enumerate(_plain(folder, file, naming)):
            depths[depth] += label_of(part, naming) is not None
    return max(depths, key=lambda depth: depths[depth], default=None) if any(depths.values()) else None


def folder_emotion(folder: Path, file: Path, naming: Naming, depth: int | None) -> str:
    """The nearest folder that names an emotion, else the one where classes are; empty at the top."""
    parts = [part.lower() for part in _plain(folder, file, naming)]
    named = [part for part in reversed(parts) if label_of(part, naming) is not None]
    if named or depth is None:
        return (named or parts[-1:] or [""])[0]
    return parts[depth] if depth < len(parts) else ""


def word(file: Path, naming: Naming) -> str:
    """The one word of a file's name that is an emotion; empty without or with several."""
    stem = unicodedata.normalize("NFC", file.stem).lower()
    words = {word for word in re.split(r"[\W\d_]+", stem) if label_of(word, naming) is not None}
    return words.pop() if len(words) == 1 else ""


def label_of(word: str, naming: Naming) -> str | None:
    """The label that a folder or a part of a name says; a code is too little, and without a set of labels
    only what is known to be an emotion counts."""
    name = folded(word)
    if name not in naming.renamed and (
        name in UNSURE or (naming.labels is None and name not in naming.aliases)
    ):
        return None
    return naming.label(word)
