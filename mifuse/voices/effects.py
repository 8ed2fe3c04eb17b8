"""What a speaker adds to the statistics of his clips, and the statistics without it.

A statistic of a clip is that of an emotion, of a speaker and noise: x = mean + b[emotion] + u[speaker] + e.
The speaker effects u are random effects: one of few clips is shrunk towards 0, by the ratio of the two
variances, which is estimated for each statistic. Acted corpora show every speaker in every emotion, so the
mean of a speaker's clips is his effect; where each speaker has one mood, that mean holds the mood as well.
`mixing` says how far speakers differ in the emotions that they show: with 0, what labels say of a speaker's
mood is taken for their error, with 1 for his mood.

Sources: mixed models as in Henderson, "Best linear unbiased estimation and prediction under a selection
model" (Biometrics 1975); normalisation within the speaker as in Busso et al. (IEEE Trans. Affective
Computing 2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

LIMIT = 4.0  # deviations: a value beyond counts as one there
ROUNDS = 6  # of slopes, effects and variances in turn; the effects then move by less than 1 %
SPREAD = 8.0  # clips that the spread of all speakers counts for beside that of one
RIDGE = 1e-3  # of the slopes: holds labels that all say the same
# Covariance of the views between speakers, as a share of all: up to LOW speakers show the same emotions, from
# HIGH on each has his own. Acted archives measured -0.16 to 0.28 (once 0.40), those of one emotion a speaker
# 0.56 to 0.97, of two 0.25 to 0.58 (benchmarks.field).
LOW, HIGH = 0.25, 0.6


def standardised(values: Array) -> Array:
    """Each column as z-scores over all clips, clipped: (N, D) -> (N, D)."""
    z = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
    return np.asarray(np.clip(z, -LIMIT, LIMIT))


def without_speakers(values: Array, speakers: Indices, labels: Array, mixing: float) -> Array:
    """Statistics without the speakers' effects, as z-scores: (N, D) -> (N, D).

    Args:
        values: statistics of each clip, as from `standardised`, (N, D).
        speakers: of each clip, 0 to S - 1, (N,).
        labels: soft labels, (N, C); calibrated ones give slopes without bias.
        mixing: 0 to 1, see above.
    """
    counts = np.bincount(speakers).astype(np.float64)[:, None]
    x, y = values - values.mean(axis=0), labels - labels.mean(axis=0)
    y = y - (1 - mixing) * _means(y, speakers, counts)[speakers]
    means, label_means = _means(x, speakers, counts), _means(y, speakers, counts)
    ratio = np.full(x.shape[1], 4.0)  # of the variances, clip over speaker: where the rounds begin
    for _ in range(ROUNDS):
        shrink = counts / (counts + ratio)  # (S, D)
        slopes = _slopes(x, y, means, label_means, counts * shrink)
        effects = shrink * (means - label_means @ slopes)
        noise = x - y @ slopes - effects[speakers]
        variance = (noise**2).sum(axis=0) / max(len(x) - len(counts), 1)
        between = (effects**2 + variance / (counts + ratio)).mean(axis=0)
        ratio = variance / np.maximum(between, 1e-6)
    spread = np.sqrt((counts * _means(noise**2, speakers, counts) + SPREAD * variance) / (counts + SPREAD))
    z = (x - effects[speakers]) * (np.sqrt(variance) / (spread + 1e-6))[speakers]
    return np.asarray(np.clip(z / (z.std(axis=0) + 1e-6), -LIMIT, LIMIT))


def mixing(views: tuple[Array, Array], speakers: Indices) -> float:
    """How far speakers differ in their emotions, 0 to 1, by two views that err independently.

    A teacher that mistakes a speaker's voice for a mood moves all of his labels, too; another teacher seldom
    moves them in the same direction. So what counts is the covariance of the two between speakers, as a share
    of all of it.

    Args:
        views: soft labels (N, C) of the LALM, and of the classifier without speaker normalisation.
        speakers: 0 to S - 1, (N,).
    """
    return float(np.clip((share_between(views, speakers) - LOW) / (HIGH - LOW), 0, 1))


def share_between(views: tuple[Array, Array], groups: Indices) -> float:
    """Share of the covariance of two views (N, C) that lies between groups (N,); about 0 by chance."""
    a, b = (view - view.mean(axis=0) for view in views)
    counts = np.bincount(groups).astype(np.float64)[:, None]
    if len(counts) < 2 or len(counts) == len(groups):
        return 0.0
    within_a, within_b = (view - _means(view, groups, counts)[groups] for view in (a, b))
    within = float((within_a * within_b).sum()) / (len(a) - len(counts))
    whole = float((a * b).sum()) / (len(a) - 1)
    return (whole - within) / whole if whole > 0 else 0.0


def _means(values: Array, groups: Indices, counts: Array) -> Array:
    """Mean of each group: (N, D), (N,), (S, 1) -> (S, D)."""
    order = np.argsort(groups, kind="stable")
    starts = np.concatenate([[0], counts[:-1, 0].cumsum().astype(np.int64)])
    return np.asarray(np.add.reduceat(values[order], starts, axis=0) / counts)


def _slopes(x: Array, y: Array, means: Array, label_means: Array, weights: Array) -> Array:
    """Generalised least squares of x (N, D) on y (N, C), one speaker's clips being correlated: (C, D).

    Args:
        weights: clips of each speaker times the share of his mean that is his effect, (S, D).
    """
    pairs = np.einsum("si,sj->sij", label_means, label_means).reshape(len(weights), -1)
    classes = y.shape[1]
    gram = (y.T @ y).reshape(-1) - weights.T @ pairs  # (D, C * C)
    gram = gram.reshape(-1, classes, classes) + RIDGE * len(y) * np.eye(classes)
    moment = (y.T @ x).T - np.einsum("sd,si,sd->di", weights, label_means, means)
    return np.asarray(np.linalg.solve(gram, moment[:, :, None])[:, :, 0].T)
