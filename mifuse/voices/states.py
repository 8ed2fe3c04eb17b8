"""States of a pretrained encoder beside the statistics of the voice: more for labels to be held against.

Middle layers carry emotion; the first ones carry the voice, the last ones words. Of mean and deviation over
time of one layer, the principal components of the archive are taken, as many as a probe of its clips holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.shards import Joined
from mifuse.models.hub import Embeddings
from mifuse.voices.effects import standardised

Array = NDArray[np.float64]

DEPTH = 2 / 3  # of the layer: the fourth of Whisper base's six, the eighth of twelve
MOST = 100  # components
CLIPS = 2  # for each component, at least


@dataclass(frozen=True)
class StatisticsAndStates:
    """Statistics of N clips' voices and an encoder's states of them, on disk until somebody asks."""

    statistics: Joined
    states: Embeddings

    def in_memory(self) -> Array:
        """Statistics and principal components side by side, (N, D)."""
        return np.hstack([self.statistics.in_memory(), principal_components(self.states)])


def principal_components(states: Embeddings) -> Array:
    """The first principal components of a middle layer's states, (N, R): at most `MOST`, and N / `CLIPS`."""
    layers = states.rows.files[0].shape[1]
    layer = round(DEPTH * (layers - 1))
    pooled = np.concatenate([file[:, layer].reshape(len(file), -1) for file in states.rows.files])
    values = standardised(pooled.astype(np.float32))
    vectors = np.linalg.eigh(values.T @ values)[1]  # (hidden, hidden), by eigenvalue, the largest last
    count = max(1, min(MOST, len(values) // CLIPS, values.shape[1]))
    return np.asarray(values @ vectors[:, ::-1][:, :count], np.float64)
