"""Speaker normalisation: an embedding relative to the speaker's mean and deviation.

An embedding is normalised over clips of one speaker where these are known, and over all clips where they are
not, so that pitch, timbre and microphone of a person drop out of what the head sees. Source: Busso et al.,
"Iterative feature normalization scheme for automatic emotion detection from speech" (IEEE Trans. Affective
Computing 2013), here learnt with the network instead of applied to its input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mifuse_runtime.speaker import EPS, FEWEST

__all__ = ["CLIPS_PER_SPEAKER", "FEWEST", "Sampler", "SpeakerNorm", "groups", "speaker_ids"]

CLIPS_PER_SPEAKER = 12  # clips of one speaker in a batch

Indices = NDArray[np.int64]


class SpeakerNorm(nn.BatchNorm1d):
    """Embeddings (batch, size) as z-scores: over one speaker's clips, or over all those of the training.

    The last `spectrum` values, mean and spread of each mel bin, hold the voice and the microphone as much as
    the emotion: for an unknown speaker they are 0.
    """

    def __init__(self, size: int, spectrum: int) -> None:
        super().__init__(size, eps=EPS, affine=False)
        self.spectrum = spectrum

    def forward(self, input: Tensor, clips_per_speaker: int = 0) -> Tensor:
        """`clips_per_speaker`: so many rows in a row are of one speaker; 0: of anybody."""
        rows = input.float()
        if clips_per_speaker:
            groups = rows.reshape(-1, clips_per_speaker, rows.shape[1])
            variance, mean = torch.var_mean(groups, dim=1, correction=0, keepdim=True)
            z = (groups - mean) / torch.sqrt(variance + self.eps)
            return z.reshape(rows.shape)
        z = super().forward(rows)
        return F.pad(z[:, : -self.spectrum], (0, self.spectrum))

    def within(self, embeddings: Tensor, speakers: Indices) -> Tensor:
        """All clips (N, size), each within its speaker; `speakers` is as from `speaker_ids`."""
        z: Tensor = self(embeddings)
        for rows in groups(speakers):
            z[rows] = self(embeddings[rows], clips_per_speaker=len(rows))
        return z


def speaker_ids(speakers: Sequence[str | None]) -> Indices:
    """A number for each speaker of `FEWEST` clips or more, -1 for the clips of all others, (N,).

    >>> speaker_ids(["ann"] * 8 + ["bob", None]).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, -1, -1]
    """
    given = [name or "" for name in speakers]
    names, index, counts = np.unique(given, return_inverse=True, return_counts=True)
    known = (counts >= FEWEST) & (names != "")
    return np.where(known, np.cumsum(known) - 1, -1)[index]


def groups(speakers: Indices) -> Iterator[Indices]:
    """The clips of each known speaker, in order."""
    order = np.argsort(speakers, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(speakers[order])) + 1):
        if len(rows) and speakers[rows[0]] >= 0:
            yield rows


class Sampler:
    """Draws the clips of a batch, from all of them or from a few speakers.

    Args:
        weights: how often each clip is drawn, (N,).
        speakers: as from `speaker_ids`.
    """

    def __init__(self, weights: NDArray[np.float64], speakers: Indices) -> None:
        self._order = np.argsort(speakers, kind="stable")  # unknown speakers first
        self._ends = np.cumsum(weights[self._order])
        ordered = speakers[self._order]
        firsts = np.flatnonzero(np.diff(ordered, prepend=-1))  # of each speaker
        self._bounds = np.append(np.append(0.0, self._ends)[firsts], self._ends[-1])

    @property
    def knows_speakers(self) -> bool:
        """Whether any clip's speaker is known."""
        return len(self._bounds) > 1

    def clips(self, generator: np.random.Generator, count: int) -> Indices:
        """`count` clips of anybody."""
        return self._at(generator.random(count) * self._ends[-1])

    def of_speakers(self, generator: np.random.Generator, count: int, clips_per_speaker: int) -> Indices:
        """Clips of one speaker after those of another, (count * clips_per_speaker,)."""
        low, high = self._bounds[0], self._bounds[-1]
        chosen = low + generator.random(count) * (high - low)
        speaker = np.clip(self._bounds.searchsorted(chosen, side="right") - 1, 0, len(self._bounds) - 2)
        low, high = self._bounds[speaker, None], self._bounds[speaker + 1, None]
        return self._at((low + generator.random((count, clips_per_speaker)) * (high - low)).reshape(-1))

    def _at(self, places: NDArray[np.float64]) -> Indices:
        found = self._ends.searchsorted(places, side="right")
        return self._order[np.minimum(found, len(self._order) - 1)]
