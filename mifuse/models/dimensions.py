"""How students learn dimensions: values from 0 to 1, by the concordance of each batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

SPREAD = 1e-4  # added to the spread of a batch: clips that hardly differ in it teach little


@dataclass(frozen=True)
class DimensionTargets:
    """What N clips are taught of V dimensions."""

    values: Array  # (N, V) from 0 to 1; NaN where nothing is known
    weights: Array | None = None  # (N, V), how sure each is; None: all alike

    def batch(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Values and weights (batch, V) of some clips; where nothing is known the weight is 0."""
        values = self.values[index]
        known = np.isfinite(values)
        weights = known if self.weights is None else np.where(known, self.weights[index], 0)
        return torch.from_numpy(np.where(known, values, 0)), torch.from_numpy(weights.astype(np.float64))


def concordance_loss(found: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """1 - CCC of values (batch, V), the mean of the dimensions that two clips or more of the batch have.

    Source: Trigeorgis et al., "Adieu features?" (ICASSP 2016), here with a weight for each clip.
    """
    taught = (weights > 0).sum(0) > 1
    if not taught.any():
        return found.sum() * 0.0
    found, targets, weights = found[:, taught].float(), targets[:, taught], weights[:, taught]
    targets, weights = targets.to(found), weights.to(found)
    weights = weights / weights.sum(0)
    mean_found, mean_target = (weights * found).sum(0), (weights * targets).sum(0)
    a, b = found - mean_found, targets - mean_target
    spread = (weights * (a**2 + b**2)).sum(0) + (mean_found - mean_target) ** 2
    return (1 - 2 * (weights * a * b).sum(0) / (spread + SPREAD)).mean()
