"""Dimensions beside the emotions, such as arousal and valence: numbers, each in a range that the user states.

Graphs and students count from 0 to 1, whatever the range is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

Ranges = Mapping[str, tuple[float, float]]  # name -> lowest and highest value

MOST = 16  # dimensions
LONGEST = 40  # characters of a name
TAKEN = {"path", "label", "speaker", "split", "start", "end", "language", "channel", "state", "confidence"}
TAKEN |= {"speech", "scores", "shares", "segments", "probs", "teacher", "draw"}  # in tables and files


def problems(ranges: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with names and ranges."""
    if len(ranges) > MOST:
        yield f"{len(ranges)} dimensions, {MOST} at most expected"
    for name, ends in ranges.items():
        if not isinstance(name, str) or not name.isprintable() or not name.strip() or len(name) > LONGEST:
            yield f"{str(name)[:LONGEST]!r} cannot be a dimension: use 1 to {LONGEST} printable characters"
        elif name in TAKEN or set(name) & set(',:=+"|'):
            yield f"{name!r} cannot be a dimension: it means something else in tables; rename it"
        if (
            not isinstance(ends, list | tuple)
            or len(ends) != 2
            or any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends)
            or not -math.inf < ends[0] < ends[1] < math.inf
        ):
            yield f"the range of {name!r} is {ends!r}: a lower and a higher number expected"


def in_unit(values: Mapping[str, float], ranges: Ranges) -> list[float]:
    """The user's numbers from 0 to 1, in the order of the ranges; NaN where there is none."""
    return [(values.get(name, math.nan) - low) / (high - low) for name, (low, high) in ranges.items()]


def concordance(truth: ArrayLike, found: ArrayLike) -> float:
    """Lin's concordance correlation coefficient (CCC) of two series (N,), -1 to 1; as `audmetric` has it.

    NaN where both are constant and equal, or shorter than two: they say nothing then.

    >>> round(concordance([1, 2, 3], [1, 2, 4]), 3)
    0.857
    """
    a, b = np.asarray(truth, np.float64), np.asarray(found, np.float64)
    if len(a) < 2:
        return math.nan
    spread = float(a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    return 2 * float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 0 else math.nan
