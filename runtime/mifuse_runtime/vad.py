"""The voice-activity gate: which frames of a signal are speech, by energy and spectral flatness."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.audio import Floats
from mifuse_runtime.settings import Settings

Vad = Callable[[Floats], float]  # a frame's samples at the model's rate -> probability of speech, or a bool

FRAME = 0.032  # seconds; 512 samples at 16 kHz, the length that silero-vad takes
_FLOOR = 1e-14  # power, so that digital silence has a logarithm


class VoiceGate:
    """Finds out once for each frame of a stream whether it is speech; keeps counts, not audio."""

    def __init__(self, settings: Settings, rate: int, vad: Vad | None = None) -> None:
        self._settings, self._rate, self._vad = settings, rate, vad
        self._frame = round(FRAME * rate)
        self.reset()

    def reset(self) -> None:
        """Forget the signal so far."""
        self._rest: Floats = np.zeros(0, np.float32)
        self._first = 0  # index of the frame that self._counts[0] is the count before
        self._counts = [0]  # speech frames before each frame, since the start

    def hear(self, samples: Floats) -> None:
        """Take the next samples (n,)."""
        samples = np.concatenate([self._rest, samples]) if self._rest.size else samples
        frames = framed(samples, self._rate)
        self._rest = samples[frames.size :].copy()
        if self._vad:
            speech = [float(self._vad(frame)) >= 0.5 for frame in frames.copy()]  # they are its own
        else:
            speech = speech_frames(frames, self._settings).tolist()
        for is_speech in speech:
            self._counts.append(self._counts[-1] + is_speech)

    def share(self, start: int, end: int) -> float:
        """Share of speech in the whole frames within samples `start` to `end`; earlier ones are forgotten."""
        first, last = -(-start // self._frame), end // self._frame
        del self._counts[: first - self._first]
        self._first = first
        last = min(last - first, len(self._counts) - 1)
        return (self._counts[last] - self._counts[0]) / last if last > 0 else 0.0


def framed(samples: Floats, rate: int) -> Floats:
    """The whole frames in samples (n,), (k, frame)."""
    frame = round(FRAME * rate)
    return samples[: samples.size // frame * frame].reshape(-1, frame)


def levels(frames: Floats) -> Floats:
    """Level of each frame (k, n) in dB below full scale, (k,)."""
    decibels: Floats = 10 * np.log10(np.einsum("ij,ij->i", frames, frames) / frames.shape[1] + _FLOOR)
    return decibels


def speech_frames(frames: Floats, settings: Settings) -> NDArray[np.bool_]:
    """Which frames (k, n) of 32 ms are speech, (k,).

    Flatness is taken octave by octave, which leaves the tilt of pink and brown noise out of it: 0.56 for
    noise of any colour, about 0.2 for voices.
    """
    hann, low, high, starts, widths = _octaves(frames.shape[1])
    spectra = np.fft.rfft(frames * hann)[:, low:high]
    power = spectra.real**2 + spectra.imag**2 + np.float32(_FLOOR)
    logs = np.add.reduceat(np.log(power), starts, axis=1) / widths
    means = np.add.reduceat(power, starts, axis=1) / widths
    flatness = (logs - np.log(means)).mean(axis=1)
    most = math.log(max(settings.flatness, _FLOOR)) + 1e-6  # rounding of what is quite flat
    voiced: NDArray[np.bool_] = (flatness <= most) & (levels(frames) >= settings.level)
    return voiced


@lru_cache(maxsize=4)
def _octaves(size: int) -> tuple[Floats, int, int, NDArray[np.intp], Floats]:
    """Window of a frame, its first and last bin, and where its octaves begin between them; their widths."""
    edges = np.array([2**k for k in range(3, size.bit_length()) if 2**k <= size // 2])  # 250 Hz, 500 Hz, …
    widths = np.diff(edges).astype(np.float32)
    return np.hanning(size).astype(np.float32), edges[0], edges[-1], edges[:-1] - edges[0], widths
