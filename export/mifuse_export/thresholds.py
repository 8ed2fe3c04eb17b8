"""When a device says "not sure", and what is silence to it: measured on clips of the target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mifuse_export.parity import Floats, Predict, probabilities
from mifuse_runtime import vad
from mifuse_runtime.settings import Settings

ABSTAIN = 0.1  # share of the calibration clips for which the device says "not sure"
QUIET = 30.0  # dB from a clip's loudest frame down to what is no speech any more
LEVELS = (-75.0, -45.0)  # dBFS: what calibration may call silence


def stream_settings(predict: Predict, sample_rate: int, clips: Sequence[Floats]) -> Settings:
    """Where the device is "not sure" and what is silence to it, from clips of the target without labels.

    The share `ABSTAIN` of the clips that the default model is least sure of is below the threshold, and what
    lies `QUIET` dB below the loudest frame of nearly every clip is silence.
    """
    if not clips:
        return Settings()
    probs = probabilities(predict, clips)
    confidence = probs.max(axis=1) if probs.shape[1] else np.zeros(len(clips))  # of no emotions: never
    framed = [vad.framed(clip, sample_rate) for clip in clips]
    peaks = [float(vad.levels(frames).max()) for frames in framed if frames.size]
    level = float(np.quantile(peaks, 0.05)) - QUIET if peaks else Settings.level
    return Settings(
        abstain=round(float(np.quantile(confidence, ABSTAIN)), 6),
        level=round(min(max(level, LEVELS[0]), LEVELS[1]), 1),
    )
