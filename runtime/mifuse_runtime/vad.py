"""The voice-activity gate: which frames of a signal are speech, by a network on half a second of spectra.

Energy and flatness take tones and music for speech, and lose a voice in hiss; mel bands do not tell held
notes from a voice. The network has 4,473 numbers (`vad.json`), fitted by `python -m benchmarks.voice --fit`
and measured there beside silero-vad.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.audio import Floats, energies
from mifuse_runtime.frontend import filters, halves
from mifuse_runtime.settings import FrontEnd, Settings

Vad = Callable[[Floats], float]  # a frame's samples at the model's rate -> probability of speech, or a bool

FRAME = 0.032  # seconds; 512 samples at 16 kHz, the length that silero-vad takes
# Bins are 62.5 Hz apart, for the halves of a frame are added before the DFT: at this rate there are so many.
RATE, BINS = 16_000, 129
FINE = (1, 49)  # bins that are looked at one by one, to 3 kHz
GROUP = 6  # of them whose changes are averaged
BANDS, LOW, HIGH = 20, 80.0, 7600.0  # mel bands, and Hz from the first to the last
VALUES = FINE[1] - FINE[0] + BANDS  # of a frame: log power
LAGS = (1, 3, 6)  # frames that changes are measured over
CONTEXT = 16  # frames that means are taken over, with this one
PIECE = 128  # frames at a time
POWER_FLOOR = 1e-9  # so that digital silence has a logarithm
_FLOOR = 1e-12


class VoiceGate:
    """Finds out once for each frame of a stream whether it is speech; keeps counts, not audio."""

    def __init__(self, settings: Settings, rate: int, vad: Vad | None = None) -> None:
        self._settings, self._rate, self._vad = settings, rate, vad
        self._frame = frame_size(rate)
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
    """What the network needs of the frames before."""

    values: Floats  # (max(LAGS), VALUES)
    hidden: Floats  # (CONTEXT, H)
    passed: bool = False  # whether the last frame passed


def frame_size(rate: int) -> int:
    """Samples of a frame, an even number."""
    return 2 * round(FRAME / 2 * rate)


def framed(samples: Floats, rate: int) -> Floats:
    """The whole frames in samples (n,), (k, frame)."""
    frame = frame_size(rate)
    return samples[: samples.size // frame * frame].reshape(-1, frame)


def speech_share(samples: Floats, settings: Settings, rate: int) -> float:
    """Share of the frames of a clip (n,) that are speech; what is less than a frame counts as one."""
    frame = frame_size(rate)
    samples = np.pad(samples, (0, frame - samples.size)) if samples.size < frame else samples
    return float(speech_frames(framed(samples, rate), settings)[0].mean())


def levels(frames: Floats) -> Floats:
    """Level of each frame (k, n) in dB below full scale, (k,)."""
    return np.asarray(10 * np.log10(energies(frames) / frames.shape[1] + _FLOOR), np.float32)


def speech_frames(
    frames: Floats, settings: Settings, past: Past | None = None
) -> tuple[NDArray[np.bool_], Past | None]:
    """Which frames (k, n) of 32 ms are speech, (k,), and what the next call needs of them."""
    speech = loud_frames(frames, settings)
    for at in range(0, len(frames) if settings.voice > 0 else 0, PIECE):
        before = past is not None and past.passed
        scores, past = network(log_power(frames[at : at + PIECE]), past)
        past = past._replace(passed=_keep_voices(speech[at : at + PIECE], scores, settings, before))
    return speech, past


def loud_frames(frames: Floats, settings: Settings) -> NDArray[np.bool_]:
    """Which frames (k, n) are as loud as speech must be, (k,)."""
    loud = max(0.0, 10 ** (settings.level / 10) - _FLOOR) * frames.shape[1]
    found: NDArray[np.bool_] = energies(frames) >= loud
    return found


def share_of(scores: Floats, loud: NDArray[np.bool_], settings: Settings) -> float:
    """`speech_share` of a clip of whose frames a graph gave the log odds, and that are loud or not."""
    passed = loud[: scores.size] & (scores[: loud.size] >= _least(settings))
    return int(np.count_nonzero(passed[1:] & passed[:-1])) / loud.size  # as `_keep_voices`


def _least(settings: Settings) -> float:
    """Log odds that speech must have."""
    return math.log(max(settings.voice, _FLOOR) / max(1 - settings.voice, _FLOOR))


def _keep_voices(loud: NDArray[np.bool_], scores: Floats, settings: Settings, before: bool) -> bool:
    """Keep of loud frames (k,), in place, those that are speech; whether the last one passed alone.

    A voice lasts longer than a click: two frames or more.

    Args:
        scores: their log odds of speech, (k,).
        before: whether the frame before them passed.
    """
    passed = loud & (scores >= _least(settings))
    np.logical_and(passed[1:], passed[:-1], out=loud[1:])
    loud[0] = before and passed[0]
    return bool(passed[-1])


def log_power(frames: Floats) -> Floats:
    """Of frames (k, n): log power of the bins in `FINE` and of the bands, (k, VALUES)."""
    rising, falling = halves(frames.shape[1] // 2)
    spectra = np.fft.rfft(frames[:, : rising.size] * rising + frames[:, rising.size :] * falling)
    parts = np.square(spectra.view(spectra.real.dtype)[:, : 2 * BINS])
    power = np.zeros((len(frames), BINS), np.float32)  # of a lower rate, some stay 0
    power[:, : parts.shape[1] // 2] = parts[:, ::2] + parts[:, 1::2]
    values = np.concatenate([power[:, slice(*FINE)], power @ bands()], axis=1) + np.float32(POWER_FLOOR)
    logs: Floats = np.log(values, out=values)
    return logs


def network(values: Floats, past: Past | None) -> tuple[Floats, Past]:
    """Log odds of speech (k,) of what `log_power` made of frames, and what the next call needs.

    A frame's power, and by how much it differs from some frames before: held notes stay as they are. The
    sums of weights over a frame's power are 0, so that a level makes no difference.
    """
    hidden_weights, hidden_bias, now, mean, bias, output, output_bias = layers()
    lead = max(LAGS)
    known = np.concatenate([values[[0] * lead] if past is None else past.values, values])
    inputs = np.empty((len(values), (1 + len(LAGS)) * VALUES), np.float32)
    inputs[:, :VALUES] = values
    for number, lag in enumerate(LAGS, 1):
        inputs[:, number * VALUES : (number + 1) * VALUES] = values - known[lead - lag : -lag]
    np.abs(inputs[:, VALUES:], out=inputs[:, VALUES:])
    hidden = np.maximum(inputs @ hidden_weights + hidden_bias, 0)
    all_ = np.concatenate([hidden[[0] * CONTEXT] if past is None else past.hidden, hidden])
    sums = np.cumsum(all_ @ mean, axis=0)
    second = np.maximum(hidden @ now + (sums[CONTEXT:] - sums[:-CONTEXT]) + bias, 0)
    return second @ output + output_bias, Past(known[-lead:], all_[-CONTEXT:])


@lru_cache(maxsize=1)
def bands() -> Floats:
    """Triangular filters of the bands, of sum 1, (BINS, BANDS)."""
    triangles = filters(FrontEnd(mels=BANDS, low=LOW, high=HIGH, folded=True), RATE)
    found: Floats = triangles / triangles.sum(axis=0)
    return found


def weights() -> str:
    """The network's numbers as JSON."""
    return Path(__file__).with_name("vad.json").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def layers() -> list[Floats]:
    """Weights ((1 + lags) * VALUES, H) and bias of the first layer; weights of its frame (H, K), of the mean
    (H, K) and bias of the second; weights (K,) and bias of the output.

    What `vad.json` has for a group of bins is written out for each of them, and the mean is of sums.
    """
    content = {key: np.array(value, np.float32) for key, value in json.loads(weights()).items()}
    rows = np.split(content["hidden"], [VALUES])
    groups = (FINE[1] - FINE[0]) // GROUP
    changes = [
        np.concatenate([part[:groups].repeat(GROUP, axis=0) / np.float32(GROUP), part[groups:]])
        for part in np.split(rows[1], len(LAGS))
    ]
    now, mean = np.split(content["second"], 2)
    return [
        np.concatenate([rows[0], *changes]),
        content["hidden_bias"],
        now,
        mean / np.float32(CONTEXT),
        *(content[key] for key in ("second_bias", "output", "output_bias")),
    ]
