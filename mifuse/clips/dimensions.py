"""Dimensions of a manifest: columns such as `arousal`, numbers in a range that the user states."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.manifest import Clip
from mifuse.errors import ManifestError, MifuseError
from mifuse_runtime.dimensions import Ranges, in_unit, problems

Array = NDArray[np.float64]

UNIT = (0.0, 1.0)  # the range where none is stated
# What corpora call them (MSP-Podcast, IEMOCAP, audEERING's models): looked for where the column is missing.
NEAR = {
    "arousal": ("emoact", "activation", "act", "aro", "a"),
    "valence": ("emoval", "pleasure", "val", "v"),
    "dominance": ("emodom", "dom", "control", "d"),
}


def parse_ranges(
    targets: str, given: Sequence[str] = (), default: Ranges | None = None
) -> dict[str, tuple[float, float]]:
    """The dimensions that `--targets` names, in alphabetical order, each with its range.

    Args:
        targets: comma-separated.
        given: what `--range` says: `1:7` for all, `arousal=1:7` for one.
        default: of those that it says nothing of; None: 0 to 1.

    Raises:
        MifuseError: no name, one twice, or a range that is none.

    >>> parse_ranges("valence, arousal", ["1:7", "valence=-1:1"])
    {'arousal': (1.0, 7.0), 'valence': (-1.0, 1.0)}
    """
    names = [name.strip().lower() for name in targets.split(",")]
    if "" in names or len(set(names)) != len(names):
        raise MifuseError(f"--targets {targets!r}: name each dimension once, as in arousal,valence")
    every, ends = dict.fromkeys(names, UNIT) | dict(default or {}), {}
    for text in given:
        name, equals, part = text.rpartition("=")
        name = name.strip().lower()
        if not equals:
            every = dict.fromkeys(names, _ends(text))
        elif name in names and name not in ends:
            ends[name] = _ends(part, text)
        else:
            raise MifuseError(f"--range {text!r}: name one of {', '.join(names)}, once")
    ranges = {name: ends.get(name, every[name]) for name in sorted(names)}
    if problem := next(problems(ranges), None):
        raise MifuseError(f"--targets: {problem}")
    return ranges


def _ends(part: str, text: str | None = None) -> tuple[float, float]:
    try:
        low, high = map(float, part.split(":"))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise MifuseError(f"--range {text or part!r}: write LOWEST:HIGHEST, as in 1:7 or arousal=1:7")
    return low, high


def dimension_values(clips: Sequence[Clip], ranges: Ranges, where: object) -> Array:
    """The numbers of the clips' columns from 0 to 1, (N, V) in the order of the ranges; NaN in empty cells.

    Args:
        where: the manifest, for errors.

    Raises:
        ManifestError: no such column, no number, or one that is not within its range.
    """
    columns = {column: None for clip in clips for column in clip.extra}
    for name in ranges:
        if clips and name not in columns:
            raise ManifestError(f"{where}: no column {name!r}{_near(name, list(columns))}")
    rows = [
        in_unit({name: _number(clip, name, ranges[name], where) for name in ranges}, ranges) for clip in clips
    ]
    return np.array(rows, dtype=np.float64).reshape(len(clips), len(ranges))


def known_dimensions(clips: Sequence[Clip], ranges: Ranges, where: object) -> Array:
    """`dimension_values` where any of the columns may be missing: they count as empty."""
    there = {name: ends for name, ends in ranges.items() if has_dimensions(clips, {name: ends})}
    values = np.full((len(clips), len(ranges)), np.nan)
    values[:, [name in there for name in ranges]] = dimension_values(clips, there, where)
    return values


def has_dimensions(clips: Sequence[Clip], ranges: Ranges) -> bool:
    """Whether any clip has a number in one of these columns."""
    return any(clip.extra.get(name, "").strip() for clip in clips for name in ranges)


def _number(clip: Clip, name: str, ends: tuple[float, float], where: object) -> float:
    text = clip.extra.get(name, "").strip()
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    low, high = ends
    if not low <= value <= high:
        raise ManifestError(
            f"{where}: {name} of {clip.name!r} is {text!r}: give a number from {low:g} to {high:g}, "
            f"leave the cell empty, or state another range, as in --range {name}={low:g}:{high:g}"
        )
    return value


def _near(name: str, columns: Sequence[str]) -> str:
    folded = {column.lower(): column for column in columns}
    other = next((folded[near] for near in (name, *NEAR.get(name, ())) if near in folded), None)
    if other is None:
        close = difflib.get_close_matches(name, folded, 1)
        other = folded[close[0]] if close else None
    found = ", ".join(map(repr, columns)) or "nothing beside what every manifest has"
    return f": rename {other!r} to it" if other else f" (found {found}): add it, or leave it out of --targets"
