"""MI-Fuse: how much the draws of each teacher disagree, and the fused labels that follow. NumPy only.

Source: Huang, Lin, Lee, "MI-Fuse", arXiv 2509.20706 (2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mifuse.errors import DrawsError, MifuseError

Array = NDArray[np.float64]

# Sums further than this from 1 are not rounding of float32 any more: somebody passed scores or logits.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Fused:
    """Fused labels of N clips and where they come from."""

    probs: Array
    """(N, C) fused distribution; rows sum to 1."""
    lalm_weight: Array
    """(N,) share of the LALM in the fused label, w_L / (w_L + w_S), in [0, 1]."""
    lalm_mi: Array
    """(N,) mutual information of the LALM's draws, nats."""
    classifier_mi: Array
    """(N,) mutual information of the classifier's draws, nats."""

    def with_labels(self, probs: Array) -> Fused:
        """The same with other labels (N, C): those that a recipe made of the teachers."""
        return replace(self, probs=probs)


def entropy(probs: ArrayLike) -> Array:
    """Shannon entropy over the last axis, nats: (..., C) -> (...).

    >>> entropy([[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
    [0.6931, 0.0]
    """
    p = np.asarray(probs, dtype=np.float64)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)  # 0 ln 0 = 0
    return np.asarray(np.maximum(-(p * logs).sum(axis=-1), 0.0))


def mutual_information(draws: ArrayLike) -> Array:
    """What the draws disagree about: H(mean of draws) - mean of H(draw); (K, N, C) -> (N,) nats, >= 0.

    0 when all draws are equal (so always for K = 1), at most ln min(K, C).

    >>> mutual_information([[[1.0, 0.0]], [[0.0, 1.0]]]).round(4).tolist()
    [0.6931]
    """
    return _mutual_information(_checked(draws, "draws"))


def _mutual_information(p: Array) -> Array:
    return np.asarray(np.maximum(entropy(p.mean(axis=0)) - entropy(p).mean(axis=0), 0.0))


def _surprise(p: Array, reference: Array) -> Array:
    return np.asarray(-np.log(np.maximum((reference * p.mean(axis=0)).sum(axis=1), 1e-9)))


WEIGHTINGS: dict[str, Callable[[Array, Array], Array]] = {
    "mi": lambda p, _: _mutual_information(p),  # the paper's: what the draws disagree about
    "entropy": lambda p, _: entropy(p.mean(axis=0)),  # also what all draws agree to be ambiguous
    "uniform": lambda p, _: np.zeros(p.shape[1]),  # plain average of the two teachers
    "reliability": _surprise,  # cross-entropy of the teacher with the reference
}
"""Name -> doubt of a teacher: draws (K, N, C), reference (N, C) -> (N,) nats.

A teacher weighs exp(-doubt / temperature). The reference is a third opinion, for `reliability` alone."""


def fuse(
    lalm_draws: ArrayLike,
    classifier_draws: ArrayLike,
    weighting: str = "mi",
    temperature: float = 1.0,
    reference: ArrayLike | None = None,
) -> Fused:
    """Fuse the draws of the LALM (K, N, C) and of the classifier (M, N, C), clip by clip.

    Each teacher's mean draw is weighted by exp(-doubt / temperature), where `weighting` names the doubt
    (see `WEIGHTINGS`); `reliability` measures it against `reference` (N, C).

    Raises:
        DrawsError: the draws are not distributions over the same clips and labels.

    >>> unsure, sure = [[[0.9, 0.1]], [[0.1, 0.9]]], [[[0.2, 0.8]]]
    >>> fused = fuse(unsure, sure)
    >>> fused.probs.round(3).tolist(), fused.lalm_weight.round(3).tolist()
    ([[0.323, 0.677]], [0.409])
    """
    if weighting not in WEIGHTINGS:
        raise MifuseError(f"unknown weighting {weighting!r}: choose one of {', '.join(WEIGHTINGS)}")
    if not (np.isfinite(temperature) and temperature > 0):
        raise MifuseError(f"temperature is {temperature}: it must be a number above 0")
    lalm, classifier = _checked(lalm_draws, "LALM draws"), _checked(classifier_draws, "classifier draws")
    if lalm.shape[1:] != classifier.shape[1:]:
        raise DrawsError(
            f"LALM draws cover {lalm.shape[1]} clips x {lalm.shape[2]} labels, classifier draws "
            f"{classifier.shape[1]} x {classifier.shape[2]}: both must be over the same clips and labels"
        )
    if reference is None and weighting == "reliability":
        raise MifuseError("weighting 'reliability' needs a reference: give probabilities (N, C)")
    third = np.asarray(lalm.mean(axis=0) if reference is None else reference, dtype=np.float64)
    doubt = WEIGHTINGS[weighting]
    # w_L / (w_L + w_S) as a sigmoid of the difference: no 0 / 0 at small temperatures.
    share = np.exp(-np.logaddexp(0.0, (doubt(lalm, third) - doubt(classifier, third)) / temperature))
    probs = share[:, None] * lalm.mean(axis=0) + (1.0 - share[:, None]) * classifier.mean(axis=0)
    return Fused(probs, share, _mutual_information(lalm), _mutual_information(classifier))


def _checked(draws: ArrayLike, who: str) -> Array:
    """Draws as float64 (K, N, C) whose rows sum to 1 exactly; refuse what are not distributions."""
    p = np.asarray(draws, dtype=np.float64)
    if p.ndim != 3 or p.shape[0] < 1 or p.shape[2] < 2:
        raise DrawsError(f"{who} have the shape {p.shape}: expected (draws, clips, labels >= 2)")
    # `not >=` also catches NaN; an infinity breaks the sum below.
    if not (p >= 0).all():
        draw, clip, _ = np.argwhere(~(p >= 0))[0]
        raise DrawsError(
            f"{who}: draw {draw} of clip {clip} has a negative or NaN probability: {p[draw, clip].tolist()}"
        )
    sums = p.sum(axis=-1)
    wrong = np.abs(sums - 1.0) > SUM_TOLERANCE
    if wrong.any():
        draw, clip = np.argwhere(wrong)[0]
        raise DrawsError(
            f"{who}: draw {draw} of clip {clip} sums to {sums[draw, clip]:.4g}, not 1: pass probabilities"
        )
    return np.asarray(p / sums[..., None])
