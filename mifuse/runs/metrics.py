"""How good predictions are: UA and its interval, WA, macro-F1, calibration, confusions. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mifuse.errors import MifuseError

ECE_BINS = 15  # equal widths over [0, 1], as in Guo et al. 2017
BOOTSTRAP_ROUNDS = 2000  # the ends of the 95 % interval then move by less than 0.5 points between seeds

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scores:
    """Scores of N predictions over C classes; rates in % unless said otherwise."""

    ua: float  # mean of the per-class recalls; classes without a clip are left out
    wa: float  # share of clips that are right
    macro_f1: float  # mean F1 of the classes that occur as label or as prediction
    ece: float  # expected calibration error, 0..1
    confusion: list[list[int]]  # counts, (C, C): rows are labels, columns predictions
    recalls: list[float]  # (C,); NaN for a class without a clip
    ua_interval: tuple[float, float]  # 95 % bootstrap interval of the UA over speakers
    n: int  # clips


def confusion_matrix(labels: Ints, predictions: Ints, classes: int) -> NDArray[np.int64]:
    """Counts (C, C): rows are labels, columns predictions.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    pairs = np.asarray(labels) * classes + np.asarray(predictions)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def unweighted_accuracy(labels: Ints, predictions: Ints, classes: int) -> float:
    """UA in %: the mean recall of the classes that occur in `labels`.

    >>> unweighted_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]), classes=4)
    50.0
    """
    _check_indices(labels, classes)
    _check_indices(predictions, classes)
    return float(np.nanmean(_recalls(confusion_matrix(labels, predictions, classes))))


def exchanged(confusion: ArrayLike) -> tuple[int, int] | None:
    """Two classes of a confusion matrix (C, C) that look exchanged: each is mostly taken for the other.

    The likeliest pair, if of the clips of both that are called either more are called by the other's name,
    of each class, and of both together beyond chance (three deviations).

    >>> exchanged([[2, 8, 0], [9, 1, 0], [0, 0, 9]])
    (0, 1)
    >>> exchanged([[8, 2, 0], [1, 9, 0], [0, 0, 9]]) is None
    True
    """
    counts = np.asarray(confusion)
    right = np.diag(counts)
    mostly = counts > right[:, None]
    wrong, kept = counts + counts.T, right[:, None] + right
    sure = mostly & mostly.T & (wrong - kept > 3 * np.sqrt(wrong + kept))
    if not sure.any():
        return None
    a, b = np.unravel_index(np.where(sure, wrong - kept, 0).argmax(), counts.shape)
    return int(a), int(b)


def expected_calibration_error(labels: Ints, probs: Floats) -> float:
    """Mean gap between confidence and accuracy over 15 equal-width bins, weighted by their clips; 0..1."""
    confidence = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    # Right-closed bins: a confidence of exactly 1 belongs to the last bin.
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def score(labels: Ints, probs: Floats, speakers: Sequence[str | None] | None = None, seed: int = 0) -> Scores:
    """Score the probabilities (N, C) of clips whose true classes are `labels` (N,).

    The interval resamples speakers, because clips of one speaker err together; without speakers it
    resamples clips. Clips with no speaker count as a speaker each. With one speaker there is nothing to
    resample and the interval is (NaN, NaN).

    Raises:
        MifuseError: nothing to score, a class outside 0..C-1, NaN, or lengths that differ.
    """
    labels, probs = np.asarray(labels), np.asarray(probs, dtype=np.float64)
    if probs.ndim != 2 or len(probs) != len(labels):
        raise MifuseError(f"{len(labels)} labels and probabilities of shape {probs.shape}: expected (N, C)")
    if not np.isfinite(probs).all():
        raise MifuseError(f"{int((~np.isfinite(probs)).any(axis=1).sum())} predictions hold NaN or infinity")
    classes = probs.shape[1]
    _check_indices(labels, classes)
    predictions = probs.argmax(axis=1)
    confusion = confusion_matrix(labels, predictions, classes)
    hits, occurs = np.diag(confusion), confusion.sum(axis=1) + confusion.sum(axis=0)
    recalls = _recalls(confusion)
    return Scores(
        ua=float(np.nanmean(recalls)),
        wa=float(100 * hits.sum() / len(labels)),
        macro_f1=float(100 * np.mean(2 * hits[occurs > 0] / occurs[occurs > 0])),
        ece=expected_calibration_error(labels, probs),
        confusion=confusion.tolist(),
        recalls=recalls.tolist(),
        ua_interval=_interval(labels, predictions, classes, bootstrap_groups(speakers, len(labels)), seed),
        n=len(labels),
    )


def _recalls(confusion: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    counts = confusion.sum(axis=1)
    return np.where(counts > 0, 100 * np.diag(confusion) / np.maximum(counts, 1), np.nan)


def bootstrap_groups(speakers: Sequence[str | None] | None, n: int) -> NDArray[np.int64]:
    """The bootstrap unit of every clip, 0..S-1."""
    if speakers is None:
        return np.arange(n)
    if len(speakers) != n:
        raise MifuseError(f"{n} labels and {len(speakers)} speakers: give one speaker a clip")
    # A tuple key cannot collide with any speaker's name.
    keys = [("clip", str(i)) if name is None else ("speaker", name) for i, name in enumerate(speakers)]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys])


def _interval(
    labels: Ints, predictions: Ints, classes: int, groups: NDArray[np.int64], seed: int
) -> tuple[float, float]:
    """95 % interval of the UA over bootstrap samples of the groups."""
    count = int(groups.max()) + 1
    # Per group and class: clips, and clips that are right.
    cells = groups * classes + labels
    clips = np.bincount(cells, minlength=count * classes).reshape(count, classes)
    right = np.bincount(cells, weights=labels == predictions, minlength=count * classes)

    def ua(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        total, hits = sums[:, :classes], sums[:, classes:]
        return np.asarray(100 * np.nanmean(np.where(total > 0, hits / np.maximum(total, 1), np.nan), axis=1))

    return bootstrap_interval(np.hstack([clips, right.reshape(count, classes)]), ua, seed)


def bootstrap_interval(
    sums: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], seed: int
) -> tuple[float, float]:
    """2.5 % and 97.5 % quantile of a statistic over bootstrap samples of G groups; NaN of fewer than two.

    Args:
        sums: of each group, (G, K): a sample then is one weighted sum, not a loop over clips.
        statistic: sums of samples (rounds, K) -> (rounds,).
    """
    count = len(sums)
    if count < 2:
        return (float("nan"), float("nan"))
    rng, samples = np.random.default_rng(seed), []
    step = max(1, 4_000_000 // count)  # 32 MB of weights at a time, however many clips stand for themselves
    for start in range(0, BOOTSTRAP_ROUNDS, step):
        rounds = min(step, BOOTSTRAP_ROUNDS - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=rounds)
        samples.append(statistic(weights @ sums))
    low, high = np.quantile(np.concatenate(samples), (0.025, 0.975))
    return (float(low), float(high))


def _check_indices(indices: Ints, classes: int) -> None:
    if len(indices) == 0:
        raise MifuseError("nothing to score: no labelled clip")
    low, high = int(np.min(indices)), int(np.max(indices))
    if low < 0 or high >= classes:
        raise MifuseError(
            f"class {low if low < 0 else high} is not among 0..{classes - 1}: check the label set"
        )
