"""Draws as JSONL: one line a draw, clips by the path that the manifest gives them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip, Key, Manifest
from mifuse.errors import DrawsError
from mifuse.files import whole_file
from mifuse.teachers.base import Answer, Source, check_dimensions, check_said
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.rows import StoredDraw


@dataclass(frozen=True)
class JsonDraw:
    """One line of the file."""

    source: Source
    clip: Key
    draw: int
    probs: dict[str, float]
    """In the teacher's words; 1 of the one that it voted for; empty where it says numbers alone."""
    dimensions: dict[str, float] = field(default_factory=dict)
    """Numbers beside them, in a range of the teacher's."""


@dataclass(frozen=True)
class Imported:
    """What an import did with the lines of the file."""

    added: int
    present: int
    """Draws that the store had already."""
    differing: int
    """Those of them with other probabilities; the store's were kept."""
    unknown: int
    """Lines whose path is not in the manifest."""


def read_jsonl(file: Path | str) -> list[JsonDraw]:
    """Read and check every line.

    Line: `{"path": "clips/x.flac", "teacher": "name", "draw": 0, "probs": {"angry": 0.1, …}}`, optionally
    with `model`, `prompt` and, for clips that are parts of files, `start` and `end` in seconds and `channel`,
    as their row of the manifest has them. A teacher that only votes has `"label": "happy"` instead of
    `probs`; one that says numbers, too, has `"dimensions": {"arousal": 4.5, …}` beside them, or alone.

    Raises:
        DrawsError: missing or empty file, or a line that is no draw, with its number.
    """
    draws: list[JsonDraw] = []
    seen: dict[tuple[Source, Key, int], int] = {}
    for number, draw in iter_jsonl(file):
        first = seen.setdefault((draw.source, draw.clip, draw.draw), number)
        if first != number:
            raise DrawsError(
                f"{file}, line {number}: repeats draw {draw.draw} of {draw.clip[0]!r} from line {first}: "
                "remove one"
            )
        draws.append(draw)
    return draws


def iter_jsonl(file: Path | str) -> Iterator[tuple[int, JsonDraw]]:
    """The lines as they come, with their numbers; checked like those of `read_jsonl`, but for repetitions."""
    number = 0
    for number, line in _lines(Path(file)):
        yield number, _parse(line, f"{file}, line {number}")
    if not number:
        raise DrawsError(f"{file}: holds no draws: one JSON object per line is expected")


def import_jsonl(
    store: DrawsStore, draws: Sequence[JsonDraw], manifest: Manifest, cache: AudioCache
) -> Imported:
    """Put what `read_jsonl` has read into the store, in one transaction."""
    hashes = {clip.key: cache.hash(clip) for clip in manifest.clips}
    known = [draw for draw in draws if draw.clip in hashes]
    if not known:
        raise DrawsError(
            f"{manifest.path}: has none of the clips that the draws are about (first: {draws[0].clip[0]!r}): "
            "paths in the draws must be written as in the manifest"
        )
    sources = {draw.source for draw in known}
    stored = {(s, d.clip, d.draw): _said(d.answer) for s in sources for d in store.draws(s)}
    keys = [(draw.source, hashes[draw.clip], draw.draw) for draw in known]
    given = [_said(draw) for draw in known]
    differing = sum(stored.get(key, said) != said for key, said in zip(keys, given, strict=True))
    added = store.add(
        StoredDraw(*key, Answer(probs, dimensions=dimensions))
        for key, (probs, dimensions) in zip(keys, given, strict=True)
    )
    return Imported(added, len(known) - added, differing, len(draws) - len(known))


def export_jsonl(
    store: DrawsStore, file: Path | str, manifest: Manifest, cache: AudioCache, source: Source | None = None
) -> int:
    """Write the stored draws of the manifest's clips, of one source or of all; returns how many."""
    clips: dict[str, list[Clip]] = {}
    for clip in manifest.clips:
        clips.setdefault(cache.hash(clip), []).append(clip)
    lines = [
        json_line(clip, draw.source, draw.draw, *_said(draw.answer))
        for one in ([source] if source else store.sources())
        for draw in store.draws(one)
        for clip in clips.get(draw.clip, ())
    ]
    if not lines:
        raise DrawsError(
            f"{store.path}: no draws for the clips of {manifest.path}: get some with `mifuse label`"
        )
    file = Path(file)
    with whole_file(file) as partial:
        partial.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _said(draw: JsonDraw | Answer) -> tuple[dict[str, float], dict[str, float]]:
    return dict(draw.probs), dict(draw.dimensions)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with file.open(encoding="utf-8-sig") as opened:
            for number, line in enumerate(opened, start=1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise DrawsError(f"{file}: no such file of draws: check the path") from None
    except UnicodeDecodeError as error:
        raise DrawsError(f"{file}: not UTF-8 text ({error.reason}): expected draws as JSONL") from error


def _parse(line: str, where: str) -> JsonDraw:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise DrawsError(f"{where}: not JSON ({error}): expected one draw per line") from error
    if not isinstance(row, dict):
        raise DrawsError(f"{where}: not a JSON object: expected path, teacher, draw and probs")
    names = [row.get("path"), row.get("teacher"), row.get("model", ""), row.get("prompt", "")]
    for name, value in zip(("path", "teacher", "model", "prompt"), names, strict=True):
        if not isinstance(value, str) or not (value or name in ("model", "prompt")):
            raise DrawsError(f"{where}: {name} is {value!r}: expected a text")
        if name != "path" and not value.isprintable():  # it becomes a name on the screen and in the store
            raise DrawsError(f"{where}: {name} is {value!r}: expected printable characters")
    draw = row.get("draw")
    if isinstance(draw, bool) or not isinstance(draw, int) or not 0 <= draw < 1 << 31:
        raise DrawsError(f"{where}: draw is {draw!r}: expected a whole number from 0")
    for name in ("start", "end"):
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise DrawsError(f"{where}: {name} is {value!r}: expected seconds")
    channel = row.get("channel")
    if channel is not None and not isinstance(channel, str):
        raise DrawsError(f"{where}: channel is {channel!r}: expected a text, as in the manifest")
    clip = (names[0], row.get("start"), row.get("end"), channel)
    probs, label = row.get("probs"), row.get("label")
    if label is not None:
        if probs is not None or not isinstance(label, str):
            raise DrawsError(f"{where}: label is {str(label)[:40]!r}: expected one label, and no probs")
        probs = {label: 1.0}
    dimensions = check_dimensions(row.get("dimensions", {}), where)
    return JsonDraw(Source(*names[1:]), clip, draw, *check_said(probs, dimensions, where))


def json_line(
    clip: Clip,
    source: Source,
    draw: int,
    probs: Mapping[str, float] | None,
    dimensions: Mapping[str, float] | None = None,
) -> str:
    """A draw of a clip as `read_jsonl` takes it."""
    row = {
        **dict(zip(("path", "start", "end", "channel"), clip.key, strict=True)),
        "teacher": source.teacher,
        "model": source.model or None,
        "prompt": source.prompt or None,
        "draw": draw,
        "probs": probs or None,
        "dimensions": dimensions or None,
    }
    return json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False) + "\n"
