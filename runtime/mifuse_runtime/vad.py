"""The voice-activity gate: which frames of a signal are speech, by a small network on half a second of bands.

Energy and spectral flatness take tones and music for speech, and lose a voice in hiss. The network has 1,265
numbers (`vad.json`), fitted by `python -m benchmarks.voice --fit` and measured there beside silero-vad.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.audio import Floats
from mifuse_runtime.settings import Settings

Vad = Callable[[Floats], float]  # a frame's samples at the model's rate -> probability of speech, or a bool

FRAME = 0.032  # seconds; 512 samples at 16 kHz, the length that silero-vad takes
SPACING = 1 / FRAME  # Hz between bins
BANDS, LOW, HIGH = 20, 80.0, 7600.0  # mel bands, and Hz from the first to the last
OCTAVES = (8, 16, 32, 64, 128, 256)  # bins: 250 Hz, 500 Hz, … 8 kHz
FINE = (3, 131)  # bins whose pattern is held against that of some frames before
LAGS = (1, 3, 6)  # frames
CONTEXT = 16  # frames that means and deviations are taken over, with this one
INPUTS = 3 * BANDS + 2 * (len(OCTAVES) - 1) + 2 * len(LAGS)
PIECE = 128  # frames at a time
_FLOOR, _BAND_FLOOR = 1e-12, 1e-9  # power, so that digital silence has a logarithm


class VoiceGate:
    """Finds out once for each frame of a stream whether it is speech; keeps counts, not audio."""

    def __init__(self, settings: Settings, rate: int, vad: Vad | None = None) -> None:
        self._settings, self._rate, self._vad = settings, rate, vad
        self._frame = round(FRAME * rate)
        self.reset()

    def reset(self) -> None:
        """Forget the signal so far."""
        self._rest: Floats = np.zeros(0, np.float32)
        self._past: Past | None = None
        self._first = 0  # index of the frame that self._counts[0] is the count before
        self._counts = [0]  # speech frames before each frame, since the start

    def feed(self, samples: Floats) -> None:
        """Take the next samples (n,)."""
        samples = np.concatenate([self._rest, samples]) if self._rest.size else samples
        frames = framed(samples, self._rate)
        self._rest = samples[frames.size :].copy()
        if self._vad:
            speech = [float(self._vad(frame)) >= 0.5 for frame in frames.copy()]  # they are its own
        else:
            found, self._past = speech_frames(frames, self._settings, self._past)
            speech = found.tolist()
        for is_speech in speech:
            self._counts.append(self._counts[-1] + is_speech)

    def share(self, start: int, end: int) -> float:
        """Share of speech in the whole frames within samples `start` to `end`; earlier ones are forgotten."""
        first, last = -(-start // self._frame), end // self._frame
        del self._counts[: first - self._first]
        self._first = first
        last = min(last - first, len(self._counts) - 1)
        return (self._counts[last] - self._counts[0]) / last if last > 0 else 0.0


class Past(NamedTuple):
    """What the network needs of the frames before: their features, and the fine spectra of the last ones."""

    features: Floats  # (CONTEXT - 1, …)
    fine: Floats  # (max(LAGS), …)
    passed: bool = False  # whether the last frame passed


def framed(samples: Floats, rate: int) -> Floats:
    """The whole frames in samples (n,), (k, frame)."""
    frame = round(FRAME * rate)
    return samples[: samples.size // frame * frame].reshape(-1, frame)


def speech_share(samples: Floats, settings: Settings, rate: int) -> float:
    """Share of the frames of a clip (n,) that are speech; what is less than a frame counts as one."""
    frame = round(FRAME * rate)
    padded = np.pad(samples, (0, max(0, frame - samples.size))) if samples.size < frame else samples
    return float(speech_frames(framed(padded, rate), settings)[0].mean())


def levels(frames: Floats) -> Floats:
    """Level of each frame (k, n) in dB below full scale, (k,)."""
    decibels: Floats = 10 * np.log10(np.einsum("ij,ij->i", frames, frames) / frames.shape[1] + _FLOOR)
    return decibels


def speech_frames(
    frames: Floats, settings: Settings, past: Past | None = None
) -> tuple[NDArray[np.bool_], Past | None]:
    """Which frames (k, n) of 32 ms are speech, (k,), and what the next call needs of them."""
    speech = np.zeros(len(frames), np.bool_)
    network = layers()
    least = np.log(max(settings.voice, _FLOOR) / max(1 - settings.voice, _FLOOR))
    for at in range(0, len(frames), PIECE):
        piece = frames[at : at + PIECE]
        loud = levels(piece)
        found = loud >= settings.level
        if settings.voice > 0:
            before = past.passed if past else False
            values, past = features(piece, past)
            hidden = np.maximum(0, values @ network[0] + network[1])
            found &= hidden @ network[2] + network[3] >= least
            past = past._replace(passed=bool(found[-1]))
            found[1:] &= found[:-1].copy()  # a voice lasts longer than a click: two frames or more
            found[0] &= before
        speech[at : at + PIECE] = found
    return speech, past


def features(frames: Floats, past: Past | None) -> tuple[Floats, Past]:
    """What the network looks at in frames (k, n), at any level: (k, INPUTS), and what the next call needs.

    Log power of the bands against their mean of half a second: now, on average, and its deviation; flatness
    by octaves (low for harmonics); likeness to spectra some frames before (high for tones).
    """
    now = np.empty((len(frames), BANDS + len(OCTAVES) - 1 + len(LAGS)), np.float32)
    fine = np.empty((max(LAGS) + len(frames), FINE[1] - FINE[0]), np.float32)
    _spectral(frames, now[:, : -len(LAGS)], fine[max(LAGS) :])
    fine[: max(LAGS)] = fine[max(LAGS)] if past is None else past.fine
    for column, lag in enumerate(LAGS, -len(LAGS)):
        np.einsum("ij,ij->i", fine[max(LAGS) :], fine[max(LAGS) - lag : -lag], out=now[:, column])
    all_ = np.concatenate([now[[0] * (CONTEXT - 1)] if past is None else past.features, now])
    means = _running_mean(np.concatenate([all_, all_[:, :BANDS] ** 2], axis=1))
    mean, squares = means[:, :-BANDS], means[:, -BANDS:]
    spread = np.sqrt(np.maximum(squares - mean[:, :BANDS] ** 2, 0))
    middle = mean[:, :BANDS] @ np.full((BANDS, 1), 1 / BANDS, np.float32)
    now[:, :BANDS] -= middle
    mean[:, :BANDS] -= middle
    inputs = np.concatenate([now, mean, spread], axis=1)
    return inputs, Past(all_[-(CONTEXT - 1) :].copy(), fine[-max(LAGS) :].copy())


def _spectral(frames: Floats, bands_and_octaves: Floats, fine: Floats) -> None:
    """Of frames (k, n): log power of the bands and flatness of the octaves, and fine spectra of length 1."""
    hann, bands, octaves = _front(frames.shape[1])
    spectra = np.fft.rfft(frames * hann)  # of all at once: a call costs as much as ten frames
    squares = spectra.view(spectra.real.dtype)[:, : 2 * OCTAVES[-1]]
    np.multiply(squares, squares, out=squares)
    power: Floats = (squares[:, ::2] + squares[:, 1::2]).astype(np.float32, copy=False)
    if power.shape[1] < OCTAVES[-1]:  # a lower rate
        power = np.pad(power, ((0, 0), (0, OCTAVES[-1] - power.shape[1])))
    np.log(power @ bands + np.float32(_BAND_FLOOR), out=bands_and_octaves[:, :BANDS])
    lively = power[:, OCTAVES[0] :] + np.float32(_FLOOR)
    bands_and_octaves[:, BANDS:] = np.log(lively) @ octaves - np.log(lively @ octaves)
    np.sqrt(power[:, slice(*FINE)], out=fine)
    fine /= np.sqrt(np.einsum("ij,ij->i", fine, fine))[:, None] + np.float32(1e-7)


def _running_mean(values: Floats) -> Floats:
    """Mean of each row (k + CONTEXT - 1, n) and those before it, (k, n)."""
    rows = 1
    while rows < CONTEXT:  # a power of two: sums of 2 rows, of 4, of 8, …
        values = values[rows:] + values[:-rows]
        rows *= 2
    mean: Floats = values / np.float32(CONTEXT)
    return mean


@lru_cache(maxsize=4)
def _front(size: int) -> tuple[Floats, Floats, Floats]:
    """Window of a frame, filters of the bands (bins, BANDS), means within the octaves (bins, octaves).

    The window holds the scale: white noise of variance 1 has a power of about 1. Filters have sum 1.
    """
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (LOW, HIGH))
    centres = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    bins = np.arange(OCTAVES[-1])[:, None] * SPACING
    rising = (bins - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - bins) / (centres[2:] - centres[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    hann = np.hanning(size) / np.sqrt(size)
    numbers = np.arange(OCTAVES[0], OCTAVES[-1])[:, None]
    within = (numbers >= OCTAVES[:-1]) & (numbers < OCTAVES[1:])
    parts = (hann, filters / filters.sum(axis=0), within / within.sum(axis=0))
    window, bands, octaves = (part.astype(np.float32) for part in parts)
    return window, bands, octaves


def weights() -> str:
    """The network's numbers as JSON."""
    return Path(__file__).with_name("vad.json").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def layers() -> list[Floats]:
    """Weights (INPUTS, H) and bias of the hidden layer, weights (H,) and bias of the output."""
    content = json.loads(weights())
    return [np.array(content[key], np.float32) for key in ("hidden", "hidden_bias", "output", "output_bias")]
