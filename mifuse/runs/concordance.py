"""How good dimensions are: CCC and its interval over speakers, mean absolute error. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mifuse.errors import MifuseError
from mifuse.runs.metrics import bootstrap_groups, bootstrap_interval
from mifuse_runtime.dimensions import Ranges, concordance

Array = NDArray[np.float64]

SMALL = 1e-12  # spread of a sample whose clips are all alike


@dataclass(frozen=True)
class DimensionScore:
    """Scores of N predictions of one dimension."""

    ccc: float  # concordance correlation coefficient, -1 to 1
    ccc_interval: tuple[float, float]  # 95 % bootstrap interval over speakers
    mae: float  # mean absolute error, in the user's range
    range: tuple[float, float]
    n: int  # clips that have this dimension


def score_dimensions(
    truth: Array,
    found: Array,
    ranges: Ranges,
    speakers: Sequence[str | None] | None = None,
    seed: int = 0,
) -> dict[str, DimensionScore]:
    """Score the values (N, V), from 0 to 1, of the dimensions that `ranges` names.

    Args:
        truth: (N, V), NaN where a clip has none; a dimension that no clip has is left out.
        speakers: of the clips; the interval resamples them, as of `metrics.score`.

    Raises:
        MifuseError: predictions are not finite, or the shapes differ.
    """
    if truth.shape != found.shape or truth.shape[1] != len(ranges):
        raise MifuseError(f"dimensions of shape {found.shape} for {truth.shape}: expected (N, {len(ranges)})")
    if not np.isfinite(found).all():
        raise MifuseError(f"{int((~np.isfinite(found)).any(axis=1).sum())} predictions hold NaN or infinity")
    groups, scores = bootstrap_groups(speakers, len(truth)), {}
    for column, (name, (low, high)) in enumerate(ranges.items()):
        rows = np.isfinite(truth[:, column])
        if not rows.any():
            continue
        a, b = truth[rows, column], found[rows, column]
        mae = float(np.abs(a - b).mean()) * (high - low)
        interval = _interval(a, b, groups[rows], seed)
        scores[name] = DimensionScore(concordance(a, b), interval, mae, (low, high), int(rows.sum()))
    return scores


def mean_ccc(truth: Array, found: Array) -> float:
    """Mean CCC of the dimensions (N, V); NaN in `truth` is left out, a CCC that says nothing counts 0."""
    rows = np.isfinite(truth)
    each = [concordance(truth[r, d], found[r, d]) for d, r in enumerate(rows.T)]
    return float(np.nan_to_num(each).mean())


def _interval(a: Array, b: Array, groups: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """95 % interval of the CCC over bootstrap samples of the groups."""
    names, places = np.unique(groups, return_inverse=True)
    parts = np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], axis=1)  # a CCC is made of their sums
    sums = np.zeros((len(names), parts.shape[1]))
    np.add.at(sums, places, parts)

    def ccc(sums: Array) -> Array:
        mean_a, mean_b, aa, bb, ab = (sums[:, 1:] / sums[:, :1]).T
        spread = aa - mean_a**2 + bb - mean_b**2 + (mean_a - mean_b) ** 2
        agreeing = 2 * (ab - mean_a * mean_b)
        return np.where(spread > SMALL, agreeing / np.maximum(spread, SMALL), 0.0)

    return bootstrap_interval(sums, ccc, seed)
