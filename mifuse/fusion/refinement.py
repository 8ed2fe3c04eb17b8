"""Fused labels that agree with the recordings: what neighbours in the archive say, without any true label.

A teacher errs clip by clip; emotions move the whole voice. A linear probe on statistics of the utterance,
spectral and prosodic ones, taken within the speaker, is fitted to the fused labels of four fifths of the
clips and predicts the other fifth: what other clips do not bear out is noise of the teacher. Fused label
and prediction are multiplied, and again, a few times. Class priors are drawn towards uniform on the way,
since a LALM's main error is to call too many clips by one name.

Sources: cross-fitting as in Northcutt et al., "Confident learning" (JAIR 2021); prior matching by iterative
scaling as in Saerens et al. (Neural Computation 2002); normalisation within the speaker as in Busso et al.
(IEEE Trans. Affective Computing 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mifuse.config import require

Array = NDArray[np.float64]
FLOOR = 1e-3  # probability that a label leaves to each class at least: nobody is as sure as to rule one out


@dataclass(frozen=True)
class RefineConfig:
    """How fused labels are refined; `rounds` = 0 is off."""

    rounds: int = 4  # fits of the probe
    folds: int = 5  # parts of the cross-fit
    trust: float = 2.0  # weight of the probe's log probability beside the fused label's
    prior: float = 0.3  # 0 keeps the class prior of the labels, 1 makes it uniform
    l2: float = 0.1  # weight decay of the probe
    speakers: bool = True  # normalise within the speaker, or voices that sound alike; false: one voice
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
    """Multinomial logistic regression on soft labels: its probabilities for the queries."""
    x = torch.from_numpy(np.c_[inputs, np.ones(len(inputs))])
    target = torch.from_numpy(labels * (weights / weights.sum())[:, None])
    slopes = torch.zeros(x.shape[1], labels.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = -(target * torch.log_softmax(x @ slopes, dim=1)).sum()
        value = value + 0.5 * l2 * (slopes[:-1] ** 2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scores = torch.from_numpy(np.c_[queries, np.ones(len(queries))]) @ slopes.detach()
    return np.asarray(torch.softmax(scores, dim=1).numpy())


def refine(
    labels: Array,
    statistics: Array,
    config: RefineConfig,
    seed: int = 0,
    known: NDArray[np.int64] | None = None,
) -> Array:
    """Refine fused labels (N, C) by what the other clips bear out; rows sum to 1.

    Args:
        statistics: (N, D) of each clip, from `mifuse.voices`.
        known: class of each clip that has a true label, -1 of all others, (N,); these labels are kept.
    """
    known = np.full(len(labels), -1) if known is None else known
    floored = np.maximum(labels, FLOOR)
    start = _keep(soften_prior(floored / floored.sum(axis=1, keepdims=True), config.prior), known)
    weights = np.where(known >= 0, config.labelled, 1.0)
    refined = start
    for round_ in range(config.rounds):
        probe = soften_prior(cross_fit(statistics, refined, weights, config, seed + round_), config.prior)
        logs = np.log(start) + config.trust * np.log(np.maximum(probe, 1e-9))
        refined = np.exp(logs - logs.max(axis=1, keepdims=True))
        refined = _keep(soften_prior(refined / refined.sum(axis=1, keepdims=True), config.prior), known)
    return refined


def _keep(labels: Array, known: NDArray[np.int64]) -> Array:
    """`labels` with the true ones in their places."""
    classes = labels.shape[1]
    sure = np.full((classes, classes), FLOOR) + (1 - classes * FLOOR) * np.eye(classes)
    return np.where(known[:, None] >= 0, sure[known], labels)
