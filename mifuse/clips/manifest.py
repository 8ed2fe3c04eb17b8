"""The manifest: a CSV of clips. Everything that mifuse reads from a user's folder goes through here."""

from __future__ import annotations

import csv
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mifuse.clips.labels import LABELS, Naming
from mifuse.errors import AudioError, ManifestError, MifuseError
from mifuse.files import whole_file
from mifuse_runtime.audio import channel_index
from mifuse_runtime.shown import quoted, unquoted

COLUMNS = ("path", "label", "speaker", "split", "start", "end", "language", "channel")
# What others call a column; as an unknown one its values would be lost without a word.
NEAR = {"emotion": "label", "emotions": "label", "labels": "label", "class": "label", "speakers": "speaker"}
NEAR |= {
    "speaker_id": "speaker",
    "speakerid": "speaker",
    "spk": "speaker",
    "splits": "split",
    "partition": "split",
}
NEAR |= dict.fromkeys(("emo", "emotion_label", "category", "mood"), "label")
NEAR |= dict.fromkeys(
    ("file", "files", "filename", "file_name", "filepath", "file_path", "wav", "audio"), "path"
)
NEAR |= dict.fromkeys(("begin", "onset", "start_sec", "start_s"), "start")
NEAR |= dict.fromkeys(("end_sec", "end_s"), "end")
NO_LABEL = {"nan", "na", "n/a", "#n/a", "null"}  # what programs write in place of an empty cell
NEAR |= {"lang": "language", "start_time": "start", "end_time": "end", "channels": "channel"}
ANY = Naming()  # set of labels
NAMED = 20  # files of an error that are named
Key = tuple[str, float | None, float | None, str | None]  # path as in the manifest, start, end, channel
SPLITS = ("adapt", "test")


@dataclass(frozen=True)
class Clip:
    """One row of a manifest.

    Args:
        name: path as the manifest has it, relative to the manifest.
        path: absolute path of the audio file.
        label: emotion, None when unlabelled.
        start, end: the part of the file that is the clip, seconds; None is the file's own start or end.
        extra: the other columns of the row.
        channel: of the file, as `mifuse_runtime.read_audio` takes it; None is the mean of all.
    """

    name: str
    path: Path
    label: str | None = None
    speaker: str | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None
    language: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    channel: str | None = None

    @property
    def key(self) -> Key:
        """What names the clip in files, whatever folder they are moved to."""
        return self.name, self.start, self.end, self.channel

    def without_speaker(self) -> Clip:
        """The same clip of nobody known."""
        return replace(self, speaker=None)


@dataclass(frozen=True)
class Manifest:
    """The clips of one CSV file, in its order."""

    path: Path
    clips: tuple[Clip, ...]

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def labels(self) -> tuple[str, ...]:
        """Those that occur, in alphabetical order."""
        return tuple(sorted({clip.label for clip in self.clips if clip.label}))

    def select(self, split: str | None) -> Manifest:
        """The rows of one split; every row for None, `all` or a manifest without splits.

        Raises:
            ManifestError: unknown split, or no row has it.
        """
        if split not in (None, "all", *SPLITS):
            raise ManifestError(f"unknown split {split!r}: use one of all, {', '.join(SPLITS)}")
        if split in (None, "all") or all(clip.split is None for clip in self.clips):
            return self
        clips = tuple(clip for clip in self.clips if clip.split == split)
        if not clips:
            raise ManifestError(
                f"{self.path}: no row has split {split!r}: put it in the `split` column or use all"
            )
        return replace(self, clips=clips)


def read_manifest(path: Path | str, labels: Naming | Sequence[str] | None = ANY) -> Manifest:
    """Read and check a manifest.

    Files are looked up here, once each and all of them: a missing one is better known now than after
    an hour of training, and 100,000 look-ups cost 0.3 s.

    Args:
        path: CSV in UTF-8 (a byte-order mark is fine) with a header.
        labels: the set to accept, under any alias, or how to name labels; rows that it leaves out are not
            read. By default any set, aliases by their English names. None: labels as they stand.

    Raises:
        ManifestError: with the line number, what is wrong there and what to do.
    """
    path = Path(path)
    if path.is_dir():
        raise ManifestError(f"{path} is a folder: `mifuse prepare {path} -o …` makes a manifest of one")
    folder = _folder(path)
    clips: list[Clip] = []
    seen: dict[tuple[object, ...], int] = {}
    for line, row in _rows(path):
        clip = _clip(row, folder, f"{path}, line {line}")
        key = (str(clip.path), clip.start, clip.end, clip.channel)
        if key in seen:
            raise ManifestError(
                f"{path}, line {line}: {clip.name!r} repeats line {seen[key]}: remove one of the two rows"
            )
        seen[key] = line
        clips.append(clip)
    if not clips:
        raise ManifestError(f"{path}: no rows under the header: add one row per clip")
    _check_splits(path, clips, list(seen.values()))
    if labels is not None:
        naming = labels if isinstance(labels, Naming) else Naming(tuple(labels))
        clips = named(clips, naming, str(path))
    return Manifest(path, tuple(_found_files(path, clips)))


def label_set(manifest: Manifest, naming: Naming) -> tuple[str, ...]:
    """The set to ask a teacher for: the naming's, else the manifest's, else the four.

    A manifest whose labels are all among the four says nothing else: some may occur in other rows alone.

    Raises:
        ManifestError: labels that are slips of known ones, or no set.
    """
    if naming.labels is not None:
        return naming.labels
    words = Counter(clip.label for clip in manifest.clips if clip.label)
    try:
        found = {label for label in naming.named(words, str(manifest.path)).values() if label}
        return LABELS if found <= set(LABELS) else naming.set_of(found, str(manifest.path))
    except MifuseError as error:
        raise ManifestError(f"{error}; --labels says what to ask for whatever clips are labelled") from error


def named(clips: Sequence[Clip], naming: Naming, where: str) -> list[Clip]:
    """The clips with their labels named, without those that are left out; unlabelled ones stay.

    Raises:
        ManifestError: labels that mean none of the set, or nothing is left.
    """
    words = Counter(clip.label for clip in clips if clip.label is not None)
    try:
        labels = naming.named(words, where)
    except MifuseError as error:
        raise ManifestError(str(error)) from error
    meant: dict[str | None, str | None] = {None: None}
    meant.update(labels)
    kept = [
        clip if clip.label == meant[clip.label] else replace(clip, label=meant[clip.label]) for clip in clips
    ]
    kept = [clip for clip in kept if clip.label != ""]
    if clips and not kept:
        raise ManifestError(f"{where}: --map leaves out every row: keep at least one label")
    return kept


def write_manifest(path: Path | str, clips: Iterable[Clip], empty: Sequence[str] = ()) -> None:
    """Write clips as a manifest with paths relative to it; columns without a value are left out.

    Args:
        empty: columns that are written even so, for somebody to fill.

    Raises:
        ManifestError: a clip that is not at or below the manifest's folder.
    """
    path = Path(path)
    rows = [_row(clip, path) for clip in clips]
    names = {name: None for row in rows for name, value in row.items() if value or name not in COLUMNS}
    columns = ["path", *(name for name in COLUMNS[1:] if name in names or name in empty)]
    columns += [name for name in names if name not in COLUMNS]
    # Before Python 3.13 the csv module leaves a bare carriage return unquoted and then cannot read it.
    odd = any("\r" in value for row in rows for value in (*row, *row.values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            dialect = "unix" if odd else "excel"  # unix quotes everything
            writer = csv.DictWriter(file, columns, restval="", dialect=dialect, lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: quoted(row[name]) for name in columns if name in row} for row in rows)
    except UnicodeEncodeError as error:
        raise ManifestError(f"{path}: {error.object!r} is not UTF-8: rename that file") from error


def _folder(manifest: Path) -> Path:
    """Not resolved: a link to clips on another disk counts as inside."""
    return Path(os.path.abspath(manifest.parent))  # noqa: PTH100


def _row(clip: Clip, manifest: Path) -> dict[str, str]:
    try:
        name = clip.path.relative_to(_folder(manifest)).as_posix()
    except ValueError:
        raise ManifestError(
            f"{manifest}: {str(clip.path)!r} is outside its folder: write the manifest at or above the clips"
        ) from None
    values = (name, clip.label, clip.speaker, clip.split, clip.start, clip.end, clip.language, clip.channel)
    own = {column: "" if value is None else str(value) for column, value in zip(COLUMNS, values, strict=True)}
    return {**clip.extra, **own}


def _rows(path: Path) -> Iterable[tuple[int, dict[str, str]]]:
    """Line number and values of each row that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = _header(path, next(reader, []))
            for values in reader:
                if len(values) == len(header):
                    yield reader.line_num, dict(zip(header, map(unquoted, values), strict=True))
                elif values:
                    raise ManifestError(
                        f"{path}, line {reader.line_num}: {len(values)} values under {len(header)} columns: "
                        "quote values that hold a comma"
                    )
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: no such manifest: make one with `mifuse prepare FOLDER -o {path.name}`"
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 ({error.reason}): save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num}: not CSV ({error}): mend that line") from error


def _header(path: Path, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    for name in names:
        meant = name.lower().replace(" ", "_")
        wrong = meant in COLUMNS and name != meant
        if meant in NEAR:  # `emotion` beside `label` is what a corpus calls it
            meant = NEAR[meant]
            wrong = meant not in names
        if wrong:
            raise ManifestError(f"{path}: column {name!r}: did you mean {meant}? Call it so, or otherwise")
    if "path" not in names:
        found = ", ".join(map(repr, names)) or "nothing"
        other = next((mark for mark in (";", "\t", "|") if mark in "".join(names[:1])), None)
        way = f"separate columns by commas, not {other!r}" if other else "comma-separated, with a header line"
        raise ManifestError(f"{path}: no `path` column (found {found}): {way}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ManifestError(f"{path}: column {twice[0]!r} appears twice: rename or remove one")
    return names


def _clip(row: dict[str, str], folder: Path, where: str) -> Clip:
    name = row.pop("path")
    if not name:
        raise ManifestError(f"{where}: empty path: name an audio file or remove the row")
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise ManifestError(
            f"{where}: {name!r} leaves the manifest's folder: use a path relative to it, without `..`"
        )
    value = {column: row.pop(column, "").strip() or None for column in COLUMNS[1:]}
    if (value["label"] or "").lower() in NO_LABEL:
        raise ManifestError(f"{where}: label is {value['label']!r}: leave it empty where there is none")
    split = value["split"]
    if split is not None and split not in SPLITS:
        raise ManifestError(f"{where}: unknown split {split!r}: use one of {', '.join(SPLITS)}")
    start, end = _seconds(value["start"], "start", where), _seconds(value["end"], "end", where)
    if end is not None and end <= (start or 0.0):
        raise ManifestError(f"{where}: end {end} is not after start {start or 0.0}: give both in seconds")
    return Clip(
        name,
        folder / name,
        value["label"],
        value["speaker"],
        split,
        start,
        end,
        value["language"],
        row,
        _channel(value["channel"], where),
    )


def _channel(text: str | None, where: str) -> str | None:
    try:
        channel_index(text or "mix")
    except AudioError as error:
        raise ManifestError(f"{where}: {error}") from error
    return text


def _seconds(text: str | None, column: str, where: str) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise ManifestError(f"{where}: {column} is {text!r}: give seconds from 0, or leave it empty")
    return seconds


def _check_splits(path: Path, clips: Sequence[Clip], lines: Sequence[int]) -> None:
    """A row without split beside rows with one would be lost without a word."""
    if any(clip.split for clip in clips):
        for clip, line in zip(clips, lines, strict=True):
            if clip.split is None:
                raise ManifestError(f"{path}, line {line}: empty split: use one of {', '.join(SPLITS)}")


def _found_files(path: Path, clips: Sequence[Clip]) -> Sequence[Clip]:
    """The clips, those with a name in another Unicode form with the one that the disk has."""
    known = {file: os.path.isfile(file) for file in dict.fromkeys(clip.path for clip in clips)}  # noqa: PTH113 - twice as fast
    if all(known.values()):
        return clips
    named = {file: file if there else _same_name(file) for file, there in known.items()}
    missing = [file for file, found in named.items() if found is None or not found.is_file()]
    if missing:
        way = "write / between folders" if "\\" in missing[0].name else "put them there or remove their rows"
        names = ", ".join(f"{str(file)!r}{_hint(file)}" for file in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ManifestError(f"{path}: {len(missing)} of {len(known)} files are missing: {names}{more}: {way}")
    return [replace(clip, path=named[clip.path] or clip.path) for clip in clips]


def _same_name(file: Path) -> Path | None:
    """The file whose path is the same letters, composed or decomposed (macOS writes the latter)."""
    if file.parent == file:
        return file
    parent = file.parent if file.parent.is_dir() else _same_name(file.parent)
    wanted = unicodedata.normalize("NFC", file.name)
    if parent is None or not parent.is_dir() or (wanted.isascii() and not (parent / file.name).exists()):
        return None
    names = (entry for entry in parent.iterdir() if unicodedata.normalize("NFC", entry.name) == wanted)
    return next(names, None)


def _hint(file: Path) -> str:
    """A name beside a missing file that differs in capitals or spaces."""
    if not file.parent.is_dir():
        return ""
    wanted = file.name.strip().lower()
    near = next((entry.name for entry in file.parent.iterdir() if entry.name.strip().lower() == wanted), None)
    return f" (there is {near!r})" if near else ""
