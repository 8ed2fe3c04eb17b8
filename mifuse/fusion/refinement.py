"""Cross-validated label refinement: fused labels that agree with the recordings, without any true label.

A teacher errs clip by clip; an emotion changes the whole voice. A linear probe on statistics of the clip,
spectral and prosodic ones without the speaker's part, is fitted to the labels of four fifths of the clips
and predicts the other fifth. Label and prediction are multiplied, the probe as sure as it is expected to be
right, and so on, a few times. The class prior is moved towards uniform on the way, since a LALM's main error
is to call too many clips by one name; where the class shares are known, it is set to them.

Sources: cross-fitting as in Northcutt et al., "Confident learning" (JAIR 2021); prior matching by iterative
scaling as in Saerens et al. (Neural Computation 2002); normalisation within the speaker as in Busso et al.
(IEEE Trans. Affective Computing 2013).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mifuse.config import require
from mifuse.fusion.reliability import FLOOR, as_sure_as_right, floored, reliabilities

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RefineConfig:
    """How fused labels are refined; `rounds` = 0 is off."""

    rounds: int = 4  # fits of the probe
    folds: int = 5  # parts of the cross-fit
    trust: float = 2.0  # weight of the probe's log probability, where no views say how sure it may be
    prior: float = 0.3  # 0 keeps the class prior of the labels, 1 makes it uniform
    l2: float = 0.1  # weight decay of the probe
    speakers: bool = True  # take out the speakers' effects, or those of similar voices; false: one voice
    labelled: float = 10.0  # clips that one clip with a true label counts for in the probe

    def __post_init__(self) -> None:
        more = (0, math.inf)
        require(self, rounds=more, folds=(2, math.inf), trust=more, prior=(0, 1), l2=more, labelled=more)


def match_prior(probs: Array, prior: Array, rounds: int = 100) -> Array:
    """Scale the classes until the mean of the rows is `prior`: (N, C), (C,) -> (N, C), rows sum to 1.

    >>> match_prior(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0.5, 0.5])).mean(0).round(3).tolist()
    [0.5, 0.5]
    """
    probs = np.maximum(probs, 1e-12)  # a class that nobody names would need an infinite scale
    scale = np.ones(probs.shape[1])
    for _ in range(rounds):
        matched = probs * scale
        matched /= matched.sum(axis=1, keepdims=True)
        scale *= prior / np.maximum(matched.mean(axis=0), 1e-9)
    return np.asarray(matched)


def soften_prior(probs: Array, strength: float) -> Array:
    """Move the class prior of the rows towards uniform: 0 not at all, 1 wholly; (N, C) -> (N, C)."""
    if strength == 0:
        return probs
    prior = np.maximum(probs.mean(axis=0), 1e-9) ** (1 - strength)
    return match_prior(probs, prior / prior.sum())


def cross_fit(inputs: Array, labels: Array, weights: Array, config: RefineConfig, seed: int) -> Array:
    """Predict each clip by a linear probe that was fitted to the other folds: (N, D), (N, C) -> (N, C).

    Args:
        weights: how much each clip counts, (N,).
    """
    fold = np.random.default_rng(seed).permutation(len(labels)) % config.folds
    out = np.empty_like(labels)
    for k in range(config.folds):
        fit = fold != k
        out[~fit] = _probe(inputs[fit], labels[fit], weights[fit], inputs[~fit], config.l2)
    return out


def _probe(inputs: Array, labels: Array, weights: Array, queries: Array, l2: float) -> Array:
    """A linear model's probabilities for the queries."""
    slopes = linear_model(inputs, labels * weights[:, None], l2)
    scores = torch.from_numpy(np.c_[queries, np.ones(len(queries))] @ slopes)
    return np.asarray(torch.softmax(scores, dim=1).numpy())


def linear_model(inputs: Array, labels: Array, l2: float) -> Array:
    """Multinomial logistic regression on soft labels (N, C): weights and, last, bias, (D + 1, C).

    Args:
        labels: rows need not sum to 1; what a row sums to is how much its clip counts.
        l2: weight decay, beside the mean loss of a clip.
    """
    x = torch.from_numpy(np.c_[inputs, np.ones(len(inputs))])
    target = torch.from_numpy(labels / labels.sum())
    slopes = torch.zeros(x.shape[1], labels.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = -(target * torch.log_softmax(x @ slopes, dim=1)).sum()
        value = value + 0.5 * l2 * (slopes[:-1] ** 2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return np.asarray(slopes.detach().numpy())


class Refined(NamedTuple):
    """What refinement gives for N clips and C classes."""

    labels: Array
    """(N, C), rows sum to 1."""
    probe: Array
    """(N, C): the cross-fitted probe of the last round alone; the labels as they came, without a round."""


def refine(
    labels: Array,
    statistics: Array | Callable[[Array], Array],
    config: RefineConfig,
    seed: int = 0,
    known: NDArray[np.int64] | None = None,
    *,
    views: Sequence[Array] = (),
    shares: Array | None = None,
) -> Refined:
    """Refine fused labels (N, C) by what the other clips say.

    Args:
        statistics: (N, D) of each clip, speaker effects taken out; or a function that gives them for labels.
        known: class of each clip that has a true label, -1 of all others, (N,); these labels are kept.
        views: (N, C) each, of teachers that err independently; with two or more, the probe is made as sure as
            its agreement with them says that it is right.
        shares: of the classes, (C,), where they are known.
    """
    known = np.full(len(labels), -1) if known is None else known
    views = [toward(floored(view), config.prior, shares) for view in views]
    start = probe = refined = _keep(toward(floored(labels), config.prior, shares), known)
    weights = np.where(known >= 0, config.labelled, 1.0)
    for round_ in range(config.rounds):
        inputs = statistics(refined) if callable(statistics) else statistics
        probe = toward(cross_fit(inputs, refined, weights, config, seed + round_), config.prior, shares)
        opinion, trust = probe, config.trust
        if len(views) >= 2:
            reliability, trust = float(reliabilities([probe, *views])[0]), 1.0
            opinion = toward(as_sure_as_right(probe, reliability), config.prior, shares)
        logs = np.log(start) + trust * np.log(np.maximum(opinion, 1e-9))
        refined = np.exp(logs - logs.max(axis=1, keepdims=True))
        refined /= refined.sum(axis=1, keepdims=True)
        refined = _keep(toward(refined, config.prior, shares), known)
    return Refined(refined, probe)


def toward(probs: Array, strength: float, shares: Array | None) -> Array:
    """The rows (N, C) with the class shares where these are known, else with a softer class prior."""
    return soften_prior(probs, strength) if shares is None else match_prior(probs, shares)


def _keep(labels: Array, known: NDArray[np.int64]) -> Array:
    """`labels` with the true ones in their places."""
    classes = labels.shape[1]
    sure = np.full((classes, classes), FLOOR) + (1 - classes * FLOOR) * np.eye(classes)
    return np.where(known[:, None] >= 0, sure[known], labels)
