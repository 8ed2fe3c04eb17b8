"""The numbers beside the draws of a teacher, such as arousal, as one array."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip
from mifuse.errors import DrawsError
from mifuse.fusion.weighting import Array
from mifuse.teachers.base import Source, check_dimensions, choose_source
from mifuse.teachers.draws import is_store
from mifuse.teachers.jsonl import read_jsonl
from mifuse.teachers.store.database import DrawsStore
from mifuse_runtime.dimensions import Ranges, in_unit

LOOKED_AT = 1000  # draws
_Said = tuple[object, int, Mapping[str, float]]  # clip (key or content hash), number of the draw, numbers


def load_numbers(
    path: Path | str,
    clips: Sequence[Clip],
    ranges: Ranges,
    cache: AudioCache | None = None,
    teacher: str | None = None,
) -> Array:
    """The numbers of one teacher's draws, (K, N, V) from 0 to 1; NaN where a draw has none.

    Args:
        path, cache, teacher: as of `load_draws`.
        ranges: of the numbers, in the order of the last axis.

    Raises:
        DrawsError: no file, several teachers, or a number that is none or out of its range.
    """
    cache, store = cache or AudioCache(), is_store(path)
    places: dict[object, list[int]] = {}
    for i, clip in enumerate(clips):
        places.setdefault(cache.hash(clip) if store else clip.key, []).append(i)
    found: list[dict[int, list[float]]] = [{} for _ in clips]
    for key, draw, numbers in _stored(path, teacher) if store else _written(path, teacher):
        for i in places.get(key, ()):
            where = f"{path}, draw {draw} of {clips[i].name!r}"
            found[i][draw] = in_unit(_within(check_dimensions(numbers, where), ranges, where), ranges)
    values = np.full((max(1, *map(len, found)), len(clips), len(ranges)), np.nan)
    for i, draws in enumerate(found):
        for k, draw in enumerate(sorted(draws)):
            values[k, i] = draws[draw]
    return values


def said_by(path: Path | str, teacher: str | None = None) -> set[str]:
    """The dimensions that the first draws of a teacher have beside their probabilities; mostly none.

    Raises:
        DrawsError: no file, or several teachers.
    """
    said = _stored(path, teacher) if is_store(path) else _written(path, teacher)
    return {name for _, _, numbers in itertools.islice(said, LOOKED_AT) for name in numbers}


def summarise_numbers(path: Path | str, source: Source) -> dict[str, dict[str, float]]:
    """Of each dimension that a teacher's draws have: how many do, the lowest, the highest, their mean.

    `deviation` is that of a clip's draws, the mean over clips of two draws or more, or 0.
    """
    said: dict[str, dict[object, list[float]]] = {}
    for clip, draw, numbers in (_stored if is_store(path) else _written)(path, str(source)):
        for name, value in check_dimensions(numbers, f"{path}, draw {draw} of {clip!r}").items():
            said.setdefault(name, {}).setdefault(clip, []).append(value)
    found = {}
    for name in sorted(said):
        values = np.concatenate([np.asarray(draws) for draws in said[name].values()])
        spreads = [float(np.std(draws)) for draws in said[name].values() if len(draws) > 1]
        found[name] = {
            "draws": len(values),
            "lowest": float(values.min()),
            "highest": float(values.max()),
            "mean": float(values.mean()),
            "deviation": float(np.mean(spreads)) if spreads else 0.0,
        }
    return found


def _stored(path: Path | str, teacher: str | None) -> Iterator[_Said]:
    with DrawsStore(path, read_only=True) as store:
        source = choose_source(store.sources(), teacher, str(path))
        for row in store.draws(source):
            yield row.clip, row.draw, row.answer.dimensions


def _written(path: Path | str, teacher: str | None) -> Iterator[_Said]:
    lines = read_jsonl(path)
    source = choose_source({line.source for line in lines}, teacher, str(path))
    return ((line.clip, line.draw, line.dimensions) for line in lines if line.source == source)


def _within(numbers: Mapping[str, float], ranges: Ranges, where: str) -> Mapping[str, float]:
    for name, (low, high) in ranges.items():
        if not low <= numbers.get(name, low) <= high:
            raise DrawsError(
                f"{where}: {name} is {numbers[name]:g}, {low:g} to {high:g} expected: "
                f"state the range that was asked for, as in --range {name}=1:7"
            )
    return numbers
