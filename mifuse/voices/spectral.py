"""Spectral statistics of a clip: cepstrum and energy over its speech frames."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mifuse.models.features import Features
from mifuse.models.frontend import N_MELS
from mifuse_runtime.audio import SILENCE_DB

Array = NDArray[np.float64]
COEFFICIENTS = 20  # of the cepstrum; the first is its level
_COSINES = np.cos(np.pi * (np.arange(N_MELS)[:, None] + 0.5) * np.arange(COEFFICIENTS) / N_MELS)
_COSINES /= math.sqrt(N_MELS)


def describe(features: Features) -> Array:
    """Spectral statistics of each clip, (N, D): cepstrum and energy (level, spread, movement), duration."""
    return np.stack([_statistics(features.batch([i])[0].numpy()) for i in range(len(features))])


def _statistics(logmel: NDArray[np.float32]) -> Array:
    energy = np.exp(logmel).sum(axis=1)
    # 10 dB above the front end's threshold: the edges of speech say little about the voice.
    speech = energy > max(10 ** (1 - SILENCE_DB / 10), 1e-3 * energy.max())
    speech = speech if speech.any() else np.ones_like(speech)
    level = np.log(energy[speech] + 1e-9)
    cepstrum = logmel[speech] @ _COSINES
    steps = np.abs(np.diff(cepstrum, axis=0)) if len(cepstrum) > 1 else np.zeros_like(cepstrum)
    mean = cepstrum.mean(axis=0)
    low, high = np.percentile(cepstrum, [10, 90], axis=0) - mean
    movement = np.abs(np.diff(level)).mean() if len(level) > 1 else 0.0
    rest = [level.mean(), level.std(), movement, np.log(len(logmel)), speech.mean()]
    return np.concatenate([mean, cepstrum.std(axis=0), low, high, steps.mean(axis=0), rest])
