"""Voices that sound alike, where nobody says who speaks: speaker clustering.

A clip's mean cepstrum is that of a voice (speaker, microphone, room) plus that of an emotion. k-means finds
the voices while each emotion's part, by labels that may be wrong, is fitted within the voices and taken out.
How many voices there are is not known: what a clip is within its voice is averaged over clusterings of few
and of many.

Sources: Lloyd, "Least squares quantization in PCM" (IEEE Trans. Information Theory 1982); many clusterings
instead of one as in Fred and Jain, "Combining multiple clusterings" (IEEE Trans. PAMI 2005).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.models.speaker_norm import FEWEST, speaker_ids
from mifuse.voices.spectral import COEFFICIENTS

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
COUNTS = (2, 3, 4, 6, 8) * 3  # voices of each clustering
ROUNDS = 30


def within_groups(values: Array, groups: Sequence[str | None]) -> Array:
    """Each column as a z-score within its group, clipped at ±4: (N, D) -> (N, D).

    Groups of fewer than 8 clips are too small for a mean and are taken together.
    """
    index = speaker_ids(groups)
    out = np.empty_like(values)
    for group in np.unique(index):
        rows = index == group
        out[rows] = (values[rows] - values[rows].mean(0)) / (values[rows].std(0) + 1e-6)
    return np.asarray(np.clip(out, -4, 4))


def within_voices(values: Array, speakers: Sequence[str | None], labels: Array, seed: int = 0) -> Array:
    """Each column as a z-score within the speaker, and where nobody says who speaks, within voices alike.

    Args:
        values: statistics of each clip, as from `mifuse.voices.statistics`, (N, D).
        speakers: who speaks, None where nobody says, (N,); one of fewer than 8 clips is not known either.
        labels: soft labels, (N, C), however wrong: they only keep emotions from being taken for voices.
    """
    out = within_groups(values, speakers)
    rows = strangers(speakers)
    if len(rows):
        groupings = clusterings(values[rows], labels[rows], seed)
        total = sum(within_groups(values[rows], [str(voice) for voice in found]) for found in groupings)
        out[rows] = within_groups(np.asarray(total), [None] * len(rows))
    return out


def strangers(speakers: Sequence[str | None]) -> Indices:
    """The clips whose voices are told apart by their sound; none when they are too few for two voices."""
    rows = np.flatnonzero(speaker_ids(speakers) < 0)
    return rows if len(rows) >= FEWEST * min(COUNTS) else rows[:0]


def clusterings(values: Array, labels: Array, seed: int = 0) -> list[Indices]:
    """Clusterings of N >= 16 clips into 2 to 8 voices, each (N,)."""
    rng = np.random.default_rng(seed)
    counts = [count for count in COUNTS if len(values) >= FEWEST * count]
    cepstra = within_groups(values[:, 1:COEFFICIENTS], [None] * len(values))
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
