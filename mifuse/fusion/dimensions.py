"""Dimensions of several teachers fused: each teacher's mean draw, weighed by the inverse of its variance.

Disagreement of the draws takes the place of mutual information. Source of the inverse-variance mean: Cochran,
"Problems arising in the analysis of a series of similar experiments" (1937). Two things are ours. A variance
of few draws is mostly chance: each is shrunk towards the teacher's mean variance. And draws of a network's
dropout differ less than those of a LALM without being better: a teacher's variances count relative to their
own mean, so that no teacher is trusted more than another beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mifuse.errors import DrawsError
from mifuse.models.dimensions import DimensionTargets
from mifuse_runtime.dimensions import Ranges

Array = NDArray[np.float64]

PRIOR = 4.0  # draws that a teacher's mean variance counts for beside those of a clip
FLOOR = 0.05**2  # variance: what rounding to whole numbers from 1 to 7 leaves


@dataclass(frozen=True)
class FusedDimensions:
    """What N clips are taught of V dimensions, and by whom."""

    ranges: Ranges
    values: Array  # (N, V) from 0 to 1; NaN where no teacher says anything
    weights: Array  # (N, V), about 1; less where draws disagree
    shares: dict[str, Array]  # teacher -> its share of each value, (N, V)

    @property
    def targets(self) -> DimensionTargets:
        """As a student is taught them."""
        return DimensionTargets(self.values, self.weights)


def fuse_dimensions(draws: Mapping[str, Array], ranges: Ranges) -> FusedDimensions:
    """Fuse the draws of several teachers.

    Args:
        draws: teacher -> (K, N, V) from 0 to 1, K of its own; NaN where a draw has no number.

    Raises:
        DrawsError: no teacher says anything of a dimension.

    >>> draws = {"LALM": np.array([[[0.2]], [[0.4]]]), "classifier": np.array([[[0.5]]])}
    >>> fuse_dimensions(draws, {"arousal": (0, 1)}).values.round(2).tolist()
    [[0.4]]
    """
    said = {
        who: [name for c, name in enumerate(ranges) if np.isfinite(one[..., c]).any()]
        for who, one in draws.items()
    }
    if silent := [name for name in ranges if not any(name in names for names in said.values())]:
        known = "; ".join(f"{who}: {', '.join(names) or 'none'}" for who, names in said.items())
        raise DrawsError(
            f"no teacher says {', '.join(silent)} (said by {known}): ask for it with "
            "`mifuse label --targets`, train a source with it, or leave it out of --targets"
        )
    means, precisions = zip(*(_teacher(one) for one in draws.values()), strict=True)
    total = np.sum(precisions, axis=0)
    weighed = np.sum([p * m for p, m in zip(precisions, means, strict=True)], axis=0)
    values = np.divide(weighed, total, out=np.full_like(total, np.nan), where=total > 0)
    teachers = np.sum([p > 0 for p in precisions], axis=0)
    shares = {who: p / np.maximum(total, 1e-12) for who, p in zip(draws, precisions, strict=True)}
    return FusedDimensions(ranges, values, total / np.maximum(teachers, 1), shares)


def _teacher(draws: Array) -> tuple[Array, Array]:
    """Mean draw (N, V), 0 where there is none, and its precision relative to the teacher's mean, or 0."""
    known = np.isfinite(draws)
    count = known.sum(axis=0)
    given = np.where(known, draws, 0.0)
    mean = given.sum(axis=0) / np.maximum(count, 1)
    square = np.where(known, (draws - mean) ** 2, 0.0).sum(axis=0)
    freedom = np.maximum(count - 1, 0)
    usual = np.maximum(square.sum(axis=0) / np.maximum(freedom.sum(axis=0), 1), FLOOR)
    variance = (PRIOR * usual + square) / (PRIOR + freedom)
    return mean, np.where(count > 0, usual / variance, 0.0)
