"""Voices that sound alike, where nobody says who speaks: speaker clustering.

A clip's mean cepstrum is that of a voice (speaker, microphone, room) plus that of an emotion. k-means finds
the voices while each emotion's part, by labels that may be wrong, is fitted within the voices and taken out.
How many voices there are is not known: what a clip is within its voice is averaged over clusterings of few
and of many.

Sources: Lloyd, "Least squares quantization in PCM" (IEEE Trans. Information Theory 1982); many clusterings
instead of one as in Fred and Jain, "Combining multiple clusterings" (IEEE Trans. PAMI 2005).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.models.speaker_norm import FEWEST
from mifuse.voices.effects import mixing, standardised, without_speakers
from mifuse.voices.spectral import COEFFICIENTS

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Views = tuple[Array, Array]
COUNTS = (2, 3, 4, 6, 8) * 3  # voices of each clustering
ROUNDS = 30


def voices_removed(
    values: Array, speakers: Sequence[str | None], views: Views | None, seed: int = 0
) -> Callable[[Array], Array]:
    """A function from soft labels (N, C) to the statistics without what the voices add, z-scores (N, D).

    Where nobody says who speaks, voices that sound alike stand for speakers. Labels, however wrong, keep
    emotions from being taken for voices.

    Args:
        values: statistics of each clip, as from `mifuse.voices.statistics`, (N, D).
        speakers: who speaks, None where nobody says, (N,).
        views: of the LALM and of the classifier, see `mixing`; None: all speakers show the same emotions.
    """
    values, names = standardised(values), np.array([name or "" for name in speakers])
    unnamed = unnamed_clips(speakers)
    named = np.setdiff1d(np.arange(len(names)), unnamed)

    def part(rows: Indices, groups: Indices, labels: Array) -> Array:
        mixed = 0.0 if views is None else mixing((views[0][rows], views[1][rows]), groups)
        return without_speakers(values[rows], groups, labels[rows], mixed)

    def removed(labels: Array) -> Array:
        out = np.empty_like(values)
        if len(named):
            out[named] = part(named, np.unique(names[named], return_inverse=True)[1], labels)
        if len(unnamed):
            found = clusterings(values[unnamed], labels[unnamed], seed)
            total = sum(part(unnamed, np.unique(groups, return_inverse=True)[1], labels) for groups in found)
            out[unnamed] = standardised(np.asarray(total))
        return out

    return removed


def unnamed_clips(speakers: Sequence[str | None]) -> Indices:
    """The clips to cluster into voices; none when they are too few for two voices."""
    rows = np.flatnonzero([not name for name in speakers])
    return rows if len(rows) >= FEWEST * min(COUNTS) else rows[:0]


def clusterings(values: Array, labels: Array, seed: int = 0) -> list[Indices]:
    """Clusterings of N >= 16 clips into 2 to 8 voices, each (N,)."""
    rng = np.random.default_rng(seed)
    counts = [count for count in COUNTS if len(values) >= FEWEST * count]
    cepstra = standardised(values[:, 1:COEFFICIENTS])
    return [k_means(cepstra, labels - labels.mean(axis=0), count, rng) for count in counts]


def k_means(values: Array, labels: Array, count: int, rng: np.random.Generator) -> Indices:
    """k-means of the values (N, D) without the part that the labels (N, C) explain: group of each clip."""
    rest = values - labels @ _slopes(labels, values)
    centres = rest[rng.choice(len(rest), count, replace=False)]
    groups = np.full(len(rest), -1)
    for _ in range(ROUNDS):
        nearest = ((centres**2).sum(axis=1) - 2 * rest @ centres.T).argmin(axis=1)
        if (nearest == groups).all():
            break
        groups = nearest
        member = np.eye(count)[groups]
        sizes = np.maximum(member.sum(axis=0), 1)[:, None]
        value, label = member.T @ values / sizes, member.T @ labels / sizes  # means of each group
        slopes = _slopes(labels - label[groups], values - value[groups])
        rest, centres = values - labels @ slopes, value - label @ slopes
    return groups


def _slopes(labels: Array, values: Array) -> Array:
    """Least squares, (C, D); the ridge holds labels that all say the same."""
    ridge = 1e-3 * len(labels) * np.eye(labels.shape[1])
    return np.asarray(np.linalg.solve(labels.T @ labels + ridge, labels.T @ values))
