"""Recordings worth listening to: the few whose labels say most of all the others.

Clips that sound alike, each within its voice, share an emotion more often than not: one clip from the middle
of each group stands for it. No label, draw or student is needed. Source: clustering before asking, as in
Nguyen and Smeulders, "Active learning using pre-clustering" (ICML 2004).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.audio import AudioCache
from mifuse.clustering import k_means, within_voices
from mifuse.errors import MifuseError
from mifuse.manifest import Clip
from mifuse.voices import voices

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def choose(clips: Sequence[Clip], cache: AudioCache, count: int, seed: int = 0) -> Indices:
    """Which `count` clips to label, in their order; their labels are not read.

    Raises:
        MifuseError: there are fewer clips.
        AudioError: a clip cannot be read.
    """
    if not 1 <= count <= len(clips):
        raise MifuseError(f"{count} of {len(clips)} clips cannot be chosen: choose 1 to {len(clips)}")
    values = voices(clips, cache).in_memory()
    alike = within_voices(values, [clip.speaker for clip in clips], np.zeros((len(clips), 1)), seed)
    return typical(alike, count, seed)


def typical(values: Array, count: int, seed: int = 0) -> Indices:
    """The row nearest to the middle of each of `count` groups of rows (N, D); fewer where rows are alike."""
    groups = k_means(values, np.zeros((len(values), 1)), count, np.random.default_rng(seed))
    chosen = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        distance = ((values[rows] - values[rows].mean(axis=0)) ** 2).sum(axis=1)
        chosen.append(rows[distance.argmin()])
    return np.sort(chosen)
