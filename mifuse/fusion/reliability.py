"""How often each view of the clips is right, without labels: from how far the views agree. NumPy only.

Views err for different reasons: a LALM by what it was taught, a classifier by its domain, a probe by the
noise of the voices. Where their errors are independent, the agreement of two is the product of their
reliabilities, so that three agreements give three reliabilities. Views that share errors agree too often and
look too reliable.

Sources: Platanios et al., "Estimating accuracy from unlabeled data" (NeurIPS 2017); triplets as in Fu et al.,
"Fast and three-rious: speeding up weak supervision with triplet methods" (ICML 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FLOOR = 1e-3  # probability that a label leaves to each class at least: nobody is as sure as to rule one out
SIMULATED = 20_000  # clips
LEAST = 1e-4  # an agreement by chance may be below 0; its logarithm is wanted


def floored(probs: Array) -> Array:
    """Rows (N, C) that rule no class out; they sum to 1."""
    probs = np.maximum(probs, FLOOR)
    return np.asarray(probs / probs.sum(axis=1, keepdims=True))


def agreement(a: Array, b: Array) -> float:
    """Mean inner product of two views' centred probabilities (N, C).

    >>> certain = np.eye(2)[[0, 1, 0, 1]]
    >>> agreement(certain, certain), agreement(certain, certain[::-1])
    (0.5, -0.5)
    """
    return float(((a - a.mean(axis=0)) * (b - b.mean(axis=0))).sum(axis=1).mean())


def reliabilities(views: Sequence[Array]) -> Array:
    """Of V >= 3 views (N, C) each: 0 is chance, 1 is the truth itself, (V,).

    Agreements of two views are fitted by products of their reliabilities, in logarithms, by least squares; of
    three views the fit is exact. Views should have about the same class prior.
    """
    pairs = [(i, j) for i in range(len(views)) for j in range(i)]
    design = np.zeros((len(pairs), len(views)))
    for row, pair in zip(design, pairs, strict=True):
        row[list(pair)] = 1
    logs = [np.log(max(agreement(views[i], views[j]), LEAST)) for i, j in pairs]
    mean = sum(view.mean(axis=0) for view in views) / len(views)
    truth = max(1 - float((mean**2).sum()), LEAST)  # agreement of the truth with itself
    fitted = np.exp(np.linalg.lstsq(design, np.array(logs), rcond=None)[0]) / np.sqrt(truth)
    return np.asarray(np.clip(fitted, 0, 1))


def expected_accuracy(reliability: float, prior: Array) -> float:
    """Share of clips that a view of this reliability has right, where the classes have this prior (C,).

    A view that knows nothing names the most frequent class.

    >>> expected_accuracy(0.0, np.array([0.7, 0.3])), expected_accuracy(1.0, np.array([0.7, 0.3]))
    (0.7, 1.0)
    """
    chance = float(prior.max())
    return chance + (1 - chance) * reliability


def accuracy_together(reliabilities: Array, classes: int) -> float:
    """Share of clips that independent views (V,) have right together, each vote weighed by its reliability.

    Nobody who has seen these views alone can be right more often; equally frequent classes, simulated.

    >>> round(accuracy_together(np.array([0.6, 0.0, 0.0]), 4), 1)  # two that know nothing add nothing
    0.7
    """
    rng = np.random.default_rng(0)
    right = np.array([expected_accuracy(float(one), np.full(classes, 1 / classes)) for one in reliabilities])
    right = np.clip(right, 1 / classes, 1 - FLOOR)
    shape = (SIMULATED, len(right))
    votes = np.where(rng.random(shape) < right, 0, rng.integers(1, classes, shape))  # 0 is the truth
    weights = np.log(right * (classes - 1) / (1 - right))
    scores = 1e-6 * rng.random((SIMULATED, classes))  # ties are broken by chance
    for view, weight in enumerate(weights):
        scores[np.arange(SIMULATED), votes[:, view]] += weight
    return float((scores.argmax(axis=1) == 0).mean())


def as_sure_as_right(probs: Array, reliability: float) -> Array:
    """The rows (N, C), tempered to the confidence that their reliability stands for."""
    return tempered(probs, expected_accuracy(reliability, probs.mean(axis=0)))


def tempered(probs: Array, confidence: float) -> Array:
    """The rows (N, C) as p ** power, with one power for all that makes their mean confidence this.

    What is said to be 90 % sure and is right in 60 % of the clips is 60 % sure then.
    """
    logs = np.log(floored(probs))
    logs -= logs.max(axis=1, keepdims=True)
    low, high = 0.02, 5.0
    for _ in range(30):
        power = np.sqrt(low * high)
        out = np.exp(power * logs)
        out /= out.sum(axis=1, keepdims=True)
        low, high = (power, high) if out.max(axis=1).mean() < confidence else (low, power)
    return np.asarray(out)
