"""The head of an encoder: linear, on its middle layers, within the speaker where speakers are known.

Voices differ more than emotions do. So each value of a known speaker's clips is moved to the mean and
deviation that it has in training, for training as for draws; clips of unknown speakers are taken as they are.
Source: Busso et al., "Iterative feature normalization scheme for automatic emotion detection from speech"
(IEEE Trans. Affective Computing 2013).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mifuse.models.speaker_norm import groups
from mifuse.runs.metrics import unweighted_accuracy

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MIDDLE = (1 / 3, 2 / 3)  # of the depth: the first layers carry the voice, the last ones words
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of squared weights, on z-scores
FOLDS = 5  # of speakers
STEPS = 60  # of L-BFGS, at most
LEAST = 1e-3  # of a value's deviation: within a speaker it is no smaller


@dataclass(frozen=True)
class Spread:
    """Mean and deviation of each value over the clips that a head was fitted to, (hidden,)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Spread:
        """Of values (N, hidden)."""
        return cls(values.mean(dim=0), values.std(dim=0, correction=0).clamp(min=1e-6))

    def within(self, values: Tensor, speakers: Indices) -> Tensor:
        """Values (N, hidden) with this spread for each known speaker's; `speakers` as from `speaker_ids`."""
        moved = values.clone()
        for rows in groups(speakers):
            deviation, mean = torch.std_mean(values[rows], dim=0, correction=0)
            z = (values[rows] - mean) / deviation.clamp(min=LEAST * self.deviation)
            moved[rows] = z * self.deviation + self.mean
        return moved


@dataclass(frozen=True)
class Linear:
    """Scores of values (N, hidden): `values @ weight.T + bias`."""

    weight: Tensor  # (C, hidden)
    bias: Tensor  # (C,)
    spread: Spread
    history: list[dict[str, float]]  # of each penalty: mean cross-entropy and UA on speakers left out
    best: int  # which of them was taken


def middle_weights(layers: int) -> Tensor:
    """Of `transformers`' softmax over layers (the input of the first among them): the middle third, alike.

    >>> [round(share, 2) for share in middle_weights(7).softmax(dim=0).tolist()]
    [0.0, 0.0, 0.33, 0.33, 0.33, 0.0, 0.0]
    """
    first, last = (round(part * (layers - 1)) for part in MIDDLE)
    weights = torch.full((layers,), -100.0)
    weights[first : last + 1] = 0.0
    return weights


def fit_linear(
    values: Tensor,
    truth: Indices,
    speakers: Indices,
    folds: Sequence[str],
    *,
    classes: int,
    seed: int = 0,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Linear:
    """Logistic regression; all classes weigh alike, and the penalty is chosen on speakers left out.

    Args:
        values: (N, hidden).
        speakers: as from `speaker_ids`.
        folds: whose clip each is; the clips of one are left out together.
        progress: called with the record of each penalty.
    """
    spread = Spread.of(values)
    z = (spread.within(values, speakers) - spread.mean) / spread.deviation
    names, index = np.unique(np.asarray(folds), return_inverse=True)
    part = np.random.default_rng(seed).permutation(len(names))[index] % min(FOLDS, len(names))
    history: list[dict[str, float]] = []
    target = torch.from_numpy(truth)
    for step, penalty in enumerate(PENALTIES, 1):
        scores = torch.empty(len(z), classes)
        for fold in np.unique(part):
            kept = part != fold
            weight, bias = _fit(z[kept], target[kept], classes, penalty)
            scores[~kept] = z[~kept] @ weight.T + bias
        record = {"step": step, "penalty": penalty, "loss": float(F.cross_entropy(scores, target))}
        record["validation_ua"] = unweighted_accuracy(truth, scores.argmax(dim=1).numpy(), classes)
        history.append(record)
        progress(record)
    best = min(range(len(history)), key=lambda i: history[i]["loss"])
    weight, bias = _fit(z, target, classes, PENALTIES[best])
    weight = weight / spread.deviation
    return Linear(weight, bias - weight @ spread.mean, spread, history, best)


def _fit(z: Tensor, target: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(target, minlength=classes).clamp(min=1)
    shares = (len(target) / (classes * counts))[target]
    weight = torch.zeros(classes, z.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        errors = F.cross_entropy(z @ weight.T + bias, target, reduction="none")
        loss = (errors * shares).mean() + penalty / 2 * (weight**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
