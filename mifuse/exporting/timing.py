"""Times of calls in rounds: percentiles, where another run's median is expected, and whether two runs differ.

Calls of one round share what a run cannot choose: where memory lies, what caches hold, how the clock stands.
So chance is taken from the medians of rounds, which start anew, and not from single calls. Some rounds take
half as long again, as other programs or machines are at work: hence the median of the rounds, and an interval
of their order, which asks for no distribution. What moves slowly, the machine as a whole, is seen in all
programs alike from round to round (`drift`). What jumps between two runs no single run shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05  # chance that a statement about two equal programs is wrong
# From so many rounds on their range holds another run's median in 19 of 20: of two runs of n rounds alike
# one's median is outside the other's range with a chance of 2 C(3n/2 - 1/2, n) / C(2n, n), .029 for 9.
ENOUGH = 9
DRIFT = 3.0  # deviations; a handful of rounds say how large one is (tests/test_timing.py has what that holds)


@dataclass(frozen=True)
class Times:
    """Of calls, ms."""

    calls: int
    p50: float  # of the medians of the rounds, their median
    p90: float
    p99: float
    p90_most: float | None  # above the true p90 in 99 of 100, by MLPerf's early stopping; None of few calls
    again: tuple[float, float] | None  # holds the p50 of 19 of 20 other runs; None of a single round
    rounds: tuple[float, ...]  # the median of each


@dataclass(frozen=True)
class Change:
    """From one run to another."""

    then: float
    now: float
    times: float  # as long
    low: float
    high: float  # of `times`, the 95 % interval
    p: float  # the chance of such a change where there is none
    differs: bool = False  # by Holm's rule, among all that were compared


def summary(rounds: Sequence[Sequence[float] | NDArray[np.float64]]) -> Times:
    """Of the calls of each round, ms.

    >>> found = summary([[1.0, 1.1, 1.2], [1.2, 1.3, 1.4], [1.0, 1.2, 9.0]])
    >>> found.rounds, round(found.p50, 3), [round(end, 2) for end in found.again]
    ((1.1, 1.3, 1.2), 1.2, [0.83, 1.73])
    """
    medians = tuple(float(np.median(calls)) for calls in rounds)
    every = np.concatenate([np.asarray(calls, np.float64) for calls in rounds])
    p90, p99 = (float(value) for value in np.percentile(every, (90, 99)))
    return Times(len(every), float(np.median(medians)), p90, p99, _most(every), _again(medians), medians)


def _most(calls: NDArray[np.float64], share: float = 0.9, confidence: float = 0.99) -> float | None:
    """The first of the ordered calls that is above the true p90 with that confidence; it takes 44 calls.

    >>> _most(np.arange(43.0)), _most(np.arange(44.0)), _most(np.arange(200.0))
    (None, 43.0, 189.0)
    """
    count, below, chance = len(calls), 0, 0.0
    while below < count:
        logs = math.lgamma(count + 1) - math.lgamma(below + 1) - math.lgamma(count - below + 1)
        chance += math.exp(logs + below * math.log(share) + (count - below) * math.log(1 - share))
        if chance >= confidence:
            return float(np.sort(calls)[below])
        below += 1
    return None


def _again(medians: Sequence[float]) -> tuple[float, float] | None:
    """Where the median of as many rounds of another run is expected; None of a single round."""
    _, error, freedom = _centre(medians)
    if not freedom:
        return None
    low, high = min(medians), max(medians)
    if len(medians) < ENOUGH:
        # Two runs' chance, and a median scatters more than a mean: pi / 2 of its variance.
        half = math.exp(_quantile(freedom) * error * math.sqrt(math.pi))
        middle = float(np.median(medians))
        low, high = min(low, middle / half), max(high, middle * half)
    return low, high


def drift(rows: Sequence[Sequence[float]]) -> float:
    """Deviation of the next run's times from this one's by what all rows have in common, in logarithms.

    Args:
        rows: medians of the rounds, in their order, of programs that were measured in turns.

    The common part of a round is the median over the rows. It is taken for a walk, whose steps add up: the
    means of two runs of n rounds, one after the other, are then 2 n / 3 steps' variance apart.

    >>> drift([[1.0] * 9, [2.0] * 9])
    0.0
    >>> round(drift([[1.01**n for n in range(9)]] * 3), 3)  # one per cent a round
    0.049
    """
    logs = np.log(np.maximum(rows, 1e-9))
    common = np.median(logs - np.median(logs, axis=1, keepdims=True), axis=0)
    lag = len(common) // 2
    if not lag:
        return 0.0
    step = float(np.mean(np.square(common[lag:] - common[:-lag]))) / lag
    return math.sqrt(2 / 3 * len(common) * step)


def widened(times: Times, by: float) -> Times:
    """The same, with an interval that allows for a `drift`."""
    if times.again is None:
        return times
    below, above = (abs(math.log(max(end, 1e-9) / max(times.p50, 1e-9))) for end in times.again)
    low, high = (math.exp(math.hypot(half, DRIFT * by)) for half in (below, above))
    return replace(times, again=(times.p50 / low, times.p50 * high))


def changes(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[Change]:
    """From one run to another: for each pair of medians of rounds, by Welch's test of their logarithms.

    Raises:
        ValueError: fewer than two rounds, which say nothing about chance.
    """
    found = [_change(then, now) for then, now in pairs]
    # Holm: of all that is compared, the chance that anything equal is called different is LEVEL.
    ordered = sorted(range(len(found)), key=lambda i: found[i].p)
    for rank, place in enumerate(ordered):
        if found[place].p > LEVEL / (len(found) - rank):
            break
        found[place] = replace(found[place], differs=True)
    return found


def _change(then: Sequence[float], now: Sequence[float]) -> Change:
    if min(len(then), len(now)) < 2:
        raise ValueError(f"{len(then)} and {len(now)} rounds: chance needs two of each at least")
    (before, a, m), (after, b, n) = _centre(then), _centre(now)
    error, shift = math.hypot(a, b), after - before
    if error == 0:
        times = math.exp(shift)
        return Change(math.exp(before), math.exp(after), times, times, times, float(shift == 0))
    freedom = error**4 / (a**4 / m + b**4 / n)
    half = _quantile(freedom) * error
    times, low, high = (math.exp(shift + part) for part in (0, -half, half))
    chance = _chance(abs(shift) / error, freedom)
    return Change(math.exp(before), math.exp(after), times, low, high, chance)


def _centre(medians: Sequence[float]) -> tuple[float, float, int]:
    """Mean of the logarithms, its standard error, and degrees of freedom."""
    logs, count = np.log(np.maximum(medians, 1e-9)), len(medians)
    error = float(np.std(logs, ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    return float(logs.mean()), error, count - 1


def _chance(t: float, freedom: float) -> float:
    """Of a |t| above this, by Student's distribution (no SciPy here: the base install has none)."""
    return float(1 - 2 * _area(np.linspace(0, t, 2_001), freedom)[-1])


def _quantile(freedom: float) -> float:
    """|t| that is passed with a chance of LEVEL.

    >>> [round(_quantile(freedom), 2) for freedom in (1, 4, 9, 1000)]
    [12.71, 2.78, 2.26, 1.96]
    """
    grid = np.linspace(0, 20, 2_001)
    return float(np.interp((1 - LEVEL) / 2, _area(grid, freedom), grid))


def _area(grid: NDArray[np.float64], freedom: float) -> NDArray[np.float64]:
    """Under Student's density from 0 to each place of an even grid."""
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    density = np.exp(scale - (freedom + 1) / 2 * np.log1p(grid**2 / freedom))
    steps = (density[1:] + density[:-1]) / 2 * np.diff(grid)
    return np.concatenate([[0.0], np.cumsum(steps)])
