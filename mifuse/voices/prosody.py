"""What a voice does, in numbers: pitch, energy, tempo, voice quality. NumPy only, 10 ms for 3 s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import SAMPLE_RATE, AudioCache, Samples
from mifuse.clips.manifest import Clip

Array = NDArray[np.float64]

FRAME = 640  # samples: 40 ms, two periods of the lowest voice
STEP = 160  # samples: 10 ms
SHORTEST = FRAME + 20 * STEP  # samples; shorter clips are padded
STEPS_PER_SECOND = SAMPLE_RATE / STEP
F0_RANGE = (65.0, 420.0)  # Hz
VOICED = 0.45  # least autocorrelation at the period
LOUD_DB = 30.0  # dB below the loudest frame; what is softer is a pause
SHORTEST_PAUSE = 0.15  # s
RISE_DB = 2.0  # dB, of a peak that counts as a syllable
OCTAVE = 7.0  # semitones; further from the median is an octave error
PIECE = 3000  # frames whose spectra are in memory at once: 30 s, 100 MB

_HERTZ = np.arange(FRAME + 1) * SAMPLE_RATE / (2 * FRAME)
_BANDS = np.stack(  # power of a frame below and above 1 kHz, all of it, and its sum over frequencies
    [(_HERTZ >= 80) & (_HERTZ < 1000), (_HERTZ >= 1000) & (_HERTZ < 5000), np.ones(FRAME + 1), _HERTZ], axis=1
)

# name -> (unit, what it is); in the order of `Prosody.values`.
MEASURES = {
    "f0_median": ("Hz", "median F0"),
    "f0_range": ("semitones", "F0, 5th to 95th percentile"),
    "f0_spread": ("semitones", "standard deviation of F0"),
    "f0_slope": ("semitones/s", "straight line through F0"),
    "f0_movement": ("semitones/s", "mean absolute change of F0"),
    "voiced_share": ("%", "voiced part of the speech"),
    "energy": ("dB", "mean energy of the speech, full scale"),
    "energy_range": ("dB", "energy, 5th to 95th percentile"),
    "energy_slope": ("dB/s", "straight line through the energy"),
    "rate": ("/s", "syllable nuclei a second (energy peaks)"),
    "pauses": ("%", "pauses within the clip"),
    "longest_pause": ("s", "longest pause"),
    "tilt": ("dB", "energy above 1 kHz against below: high is pressed or bright"),
    "centroid": ("Hz", "centre of gravity of the spectrum"),
    "jitter": ("%", "change of the period from frame to frame"),
    "shimmer": ("dB", "change of the energy from frame to frame, voiced"),
    "harmonicity": ("dB", "harmonics against noise: low is breathy or rough"),
    "duration": ("s", "length"),
}


@dataclass(frozen=True)
class Prosody:
    """Measures of one clip and the contours that they come from."""

    values: Array
    """(len(MEASURES),), all finite."""
    times: Array
    """(frames,) s, centres of the frames."""
    f0: Array
    """(frames,) Hz, NaN where unvoiced."""
    energy: Array
    """(frames,) dB, full scale."""


def measure(samples: Samples) -> Prosody:
    """Measure a clip of (n,) samples at 16 kHz, n >= 1; silence and noise give finite numbers too."""
    padded = np.pad(samples.astype(np.float64), (0, max(0, SHORTEST - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::STEP]
    times = (np.arange(len(frames)) * STEP + FRAME / 2) / SAMPLE_RATE
    pieces = [_piece(frames[first : first + PIECE]) for first in range(0, len(frames), PIECE)]
    energy, f0, strength, bands = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    loud = energy > energy.max() - LOUD_DB
    voiced = loud & (strength > VOICED)
    voiced = _without_octave_errors(f0, voiced)
    values = np.array(
        [
            *_pitch_measures(f0, voiced, times),
            100 * voiced.sum() / loud.sum(),
            *_energy_measures(energy, loud, times),
            *_tempo(energy, loud, len(samples) / SAMPLE_RATE),
            *_quality(bands, f0, energy, strength, voiced if voiced.any() else loud),
            len(samples) / SAMPLE_RATE,
        ]
    )
    return Prosody(values, times, np.where(voiced, f0, np.nan), energy)


def measures(clips: Sequence[Clip], cache: AudioCache) -> Array:
    """Measures of each clip without its silent ends, (N, len(MEASURES))."""
    return np.stack([measure(cache.samples(clip)).values for clip in clips])


def _piece(frames: Array) -> tuple[Array, Array, Array, Array]:
    """Energy, F0, strength and `_BANDS` of frames (n, FRAME)."""
    spectra = np.abs(np.fft.rfft(frames * np.hanning(FRAME), 2 * FRAME)) ** 2
    energy = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)
    return energy, *_pitch(spectra), spectra @ _BANDS


def _pitch(spectra: Array) -> tuple[Array, Array]:
    """F0 and strength of the autocorrelation peak of each frame, the window's own shape divided out."""
    correlation = np.fft.irfft(spectra)
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(FRAME), 2 * FRAME)) ** 2)
    correlation = correlation / (correlation[:, :1] + 1e-12) / (window / window[0] + 1e-3)
    first, last = (int(SAMPLE_RATE / hertz) for hertz in F0_RANGE[::-1])
    lags = correlation[:, first : last + 1]
    best = lags.argmax(axis=1)
    # Longer periods fit as well; the shortest one that is nearly as good is the voice's.
    near = lags >= 0.9 * lags.max(axis=1, keepdims=True)
    peaks = near & (lags >= np.roll(lags, 1, axis=1)) & (lags >= np.roll(lags, -1, axis=1))
    best = np.where(peaks[:, 1:-1].any(axis=1), peaks[:, 1:-1].argmax(axis=1) + 1, best)
    at = np.clip(best, 1, lags.shape[1] - 2)
    rows = np.arange(len(lags))
    left, middle, right = lags[rows, at - 1], lags[rows, at], lags[rows, at + 1]
    bend = left - 2 * middle + right
    shift = np.where(
        np.abs(bend) > 1e-9, 0.5 * (left - right) / np.where(np.abs(bend) > 1e-9, bend, 1.0), 0.0
    )
    return SAMPLE_RATE / (first + at + np.clip(shift, -0.5, 0.5)), np.clip(middle, 0.0, 0.999)


def _without_octave_errors(f0: Array, voiced: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not voiced.any():
        return voiced
    return np.asarray(voiced & (np.abs(12 * np.log2(f0 / np.median(f0[voiced]))) < OCTAVE))


def _line(x: Array, y: Array) -> float:
    """Slope of the straight line through points; 0 when they span less than 0.1."""
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 2 and np.ptp(x) > 0.1 else 0.0


def _pitch_measures(f0: Array, voiced: NDArray[np.bool_], times: Array) -> Sequence[float]:
    if voiced.sum() < 3:
        return [0.0] * 5
    pitch = 12 * np.log2(f0[voiced])
    low, high = np.percentile(pitch, [5, 95])
    together = np.flatnonzero(voiced[1:] & voiced[:-1])
    steps = np.abs(12 * np.log2(f0[together + 1] / f0[together]))
    movement = float(steps.mean() * STEPS_PER_SECOND) if len(steps) else 0.0
    return [float(np.median(f0[voiced])), high - low, pitch.std(), _line(times[voiced], pitch), movement]


def _energy_measures(energy: Array, loud: NDArray[np.bool_], times: Array) -> Sequence[float]:
    low, high = np.percentile(energy[loud], [5, 95])
    return [energy[loud].mean(), high - low, _line(times[loud], energy[loud])]


def _tempo(energy: Array, loud: NDArray[np.bool_], seconds: float) -> Sequence[float]:
    """Syllable nuclei a second, share of pauses, longest pause."""
    kernel = np.hanning(13) / np.hanning(13).sum()
    smooth = np.convolve(np.pad(np.maximum(energy, energy.max() - 40), 6, mode="edge"), kernel, "valid")
    where = np.flatnonzero(loud)
    inside = ~loud[where[0] : where[-1] + 1]
    edges = np.flatnonzero(np.diff(np.r_[0, inside.astype(int), 0]))
    pauses = (edges[1::2] - edges[::2]) / STEPS_PER_SECOND
    pauses = pauses[pauses >= SHORTEST_PAUSE]
    return [_peaks(smooth[loud]) / seconds, 100 * pauses.sum() / seconds, pauses.max(initial=0.0)]


def _peaks(track: Array) -> int:
    """How many peaks rise and fall by RISE_DB."""
    count, rising, turn = 0, True, float(track[0])
    for value in track.tolist():
        turn = max(turn, value) if rising else min(turn, value)
        if abs(value - turn) > RISE_DB:  # turned round
            count, rising, turn = count + rising, not rising, value
    return count + (rising and count > 0)


def _quality(
    bands: Array, f0: Array, energy: Array, strength: Array, where: NDArray[np.bool_]
) -> Sequence[float]:
    """Tilt, centroid, jitter, shimmer, harmonicity of the voiced frames."""
    low, high, whole, moment = bands[where].mean(axis=0)
    tilt = 10 * np.log10((high + 1e-12) / (low + 1e-12))
    centroid = float(moment / (whole + 1e-12))
    together = np.flatnonzero(where[1:] & where[:-1])
    if not len(together):
        return [tilt, centroid, 0.0, 0.0, 0.0]
    periods = 1 / f0
    change = np.abs(periods[together + 1] - periods[together]) / periods[together]
    shimmer = np.abs(energy[together + 1] - energy[together])
    harmonic = np.clip(strength[where], 1e-3, 0.999)
    harmonicity = float((10 * np.log10(harmonic / (1 - harmonic))).mean())
    return [tilt, centroid, 100 * float(np.median(change)), float(np.median(shimmer)), harmonicity]


@dataclass(frozen=True)
class Norm:
    """Mean and spread of the measures over a collection of clips."""

    mean: Array
    spread: Array
    count: int

    @classmethod
    def of(cls, values: Sequence[Array]) -> Norm:
        """From the values of clips."""
        table = np.stack(values)
        return cls(table.mean(axis=0), table.std(axis=0), len(table))

    def z(self, values: Array) -> Array:
        """How many standard deviations above the mean, at most 5; 0 where all are alike."""
        known = self.spread > 1e-9
        return np.clip(np.where(known, (values - self.mean) / np.where(known, self.spread, 1.0), 0.0), -5, 5)
