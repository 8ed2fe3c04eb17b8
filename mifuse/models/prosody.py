"""Prosody of a clip from the front end's own spectra, and a linear head on it beside the network's.

A student's mel bins are too wide for pitch. A few measures of pitch and voice quality carry over to new
speakers where the network, which has learnt some voices by heart, errs: the scores of both heads are added
(docs/log). The measures are part of the exported graph: small matrix products, no loop over frames.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mifuse.models.frontend import HOP, LOW_BINS, N_MELS, SAMPLE_RATE, WINDOW
from mifuse.models.speaker_norm import groups
from mifuse_runtime.speaker import EPS, SILENT

F0_RANGE = (65.0, 420.0)  # Hz
STEPS = 2  # candidates a semitone
UPPER = 0.004  # of the autocorrelation, a semitone: of two octaves that fit as well, the upper one is meant
VOICED = 0.5  # least autocorrelation of a voiced frame
LOUD_DB = 30.0  # dB below the loudest frame; what is softer is a pause
OCTAVE = 7.0  # semitones; further from the median is an octave error
STEEP = 20.0  # of the slope from unvoiced to voiced, in autocorrelation
SHARP = 100.0  # of the softmax that picks a pitch, in autocorrelation
FAINT = 1e-3  # weight of frames without voice in the spectrum
HUM = 2  # lowest bins, of mains hum and wind: left out
BRIGHT = 10  # first mel bin above 1 kHz
FARTHEST = 3.0  # deviations from the archive's mean that a measure may have
DECIBELS = 10 / math.log(10)

# name -> (unit, what it is, what it is divided by: so clips differ by about 1)
MEASURES = {
    "f0": ("semitones above 65 Hz", "mean pitch", 6.0),
    "f0_spread": ("semitones", "standard deviation of the pitch", 1.0),
    "f0_slope": ("semitones/s", "straight line through the pitch, over the time with voice", 2.0),
    "f0_movement": ("semitones a frame", "mean absolute change of the pitch", 0.1),
    "voiced": ("share", "voiced part of the speech", 0.1),
    "harmonicity": ("dB", "harmonics against noise: low is breathy or rough", 2.0),
    "tilt": ("dB", "energy above 1 kHz against below: high is pressed or bright", 4.0),
    "centroid": ("mel bins", "centre of gravity of the spectrum", 2.0),
}


class Prosody(nn.Module):
    """`LogMel.power` with the low bins, (batch, frames, N_MELS + LOW_BINS) -> (batch, len(MEASURES)).

    Any level, and any silence behind a clip, gives the same.
    """

    cosines: Tensor
    above: Tensor
    upper: Tensor
    grid: Tensor
    places: Tensor
    scales: Tensor

    def __init__(self) -> None:
        super().__init__()
        count = int(12 * math.log2(F0_RANGE[1] / F0_RANGE[0])) * STEPS + 1
        grid = torch.arange(count, dtype=torch.float64) / STEPS  # semitones above the lowest pitch
        lags = SAMPLE_RATE / F0_RANGE[0] * 2 ** (-grid / 12)  # samples
        bins = torch.cat([torch.arange(0, LOW_BINS, 2), torch.arange(1, LOW_BINS, 2)]).double()
        # Of a sum of three frames, and as sharp as the softmax needs it.
        cosines = SHARP / 3 * torch.cos(2 * math.pi / WINDOW * bins[:, None] * lags) / _taper(lags)
        self.register_buffer("cosines", (cosines * (bins[:, None] >= HUM)).float(), persistent=False)
        self.register_buffer("above", (bins[:, None] >= HUM).float(), persistent=False)
        self.register_buffer("upper", (SHARP * UPPER * grid).float(), persistent=False)
        self.register_buffer("grid", grid.float()[:, None], persistent=False)
        self.register_buffer("places", torch.arange(N_MELS).float(), persistent=False)
        scales = torch.tensor([scale for *_, scale in MEASURES.values()])
        self.register_buffer("scales", scales, persistent=False)

    def forward(self, power: Tensor) -> Tensor:
        # Every decision is a steep slope, not a step: what engines round otherwise makes no difference then.
        mel, low = power[..., :N_MELS], power[..., N_MELS:]
        loudness = mel.sum(dim=-1)
        level = loudness / loudness.amax(dim=1, keepdim=True).clamp(min=SILENT)
        loud = (level * 10 ** (LOUD_DB / 10) - 0.5).clamp(0.0, 1.0)
        chosen, strength = self._contour(low)
        voiced = loud * (STEEP * (strength - VOICED) + 0.5).clamp(0.0, 1.0)
        pitch = (chosen @ self.grid).squeeze(-1)
        away = (pitch - self._median(chosen, voiced)).abs()
        kept = voiced * (OCTAVE - away).clamp(0.0, 1.0)
        both = kept[:, 1:] * kept[:, :-1]
        spectrum = ((kept + FAINT * loud)[:, None] @ mel)[:, 0]  # of the voice or, without one, of the speech
        dark, bright = spectrum[:, :BRIGHT].sum(dim=1), spectrum[:, BRIGHT:].sum(dim=1)
        harmonic = strength.clamp(0.01, 0.99)
        found = [
            _mean(pitch, kept),
            *_line(pitch, kept),
            _mean((pitch[:, 1:] - pitch[:, :-1]).abs().clamp(max=3.0), both),
            voiced.sum(dim=1) / loud.sum(dim=1).clamp(min=1.0),
            _mean(DECIBELS * (harmonic / (1 - harmonic)).log(), kept + FAINT * loud),
            DECIBELS * (bright.clamp(min=SILENT) / dark.clamp(min=SILENT)).log(),
            (spectrum @ self.places) / (dark + bright).clamp(min=SILENT),
        ]
        return torch.stack(found, dim=1) / self.scales

    def _contour(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """How much of each frame has which pitch of the grid, (batch, frames, grid), and its likeness."""
        whole = low @ self.above
        share = nn.functional.pad(low / whole.clamp(min=SILENT), (0, 0, 1, 1))
        share = share[:, :-2] + share[:, 1:-1] + share[:, 2:]
        preferred = share @ self.cosines + self.upper
        chosen = torch.softmax(preferred, dim=-1)
        return chosen, (chosen * (preferred - self.upper)).sum(dim=-1) / SHARP

    def _median(self, chosen: Tensor, voiced: Tensor) -> Tensor:
        """Median pitch of the voiced frames, (batch, 1): as many steps as less than half of them reach."""
        frames = (voiced[:, None] @ chosen)[:, 0].cumsum(dim=1)  # at this pitch or below
        half = 0.5 * voiced.sum(dim=1, keepdim=True)
        return (half - frames + 0.5).clamp(0.0, 1.0).sum(dim=1, keepdim=True) / STEPS


def _taper(lags: Tensor) -> Tensor:
    """The window's own autocorrelation at some lags in samples, which the frame's is divided by."""
    window = torch.hann_window(WINDOW, dtype=torch.float64)
    own = torch.fft.irfft(torch.fft.rfft(window, 2 * WINDOW).abs() ** 2)
    at = lags.long()
    between = own[at] + (lags - at) * (own[at + 1] - own[at])
    found: Tensor = between / own[0]
    return found.clamp(min=0.3)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the frames, (batch,); 0 without any."""
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def _line(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation over the frames, and slope of the straight line through them in 1/s, (batch,) each."""
    seconds = weights.cumsum(dim=1) * (HOP / SAMPLE_RATE)  # of voice, without pauses
    late = (seconds - _mean(seconds, weights)[:, None]) * weights
    away = (values - _mean(values, weights)[:, None]) * weights
    slope = _mean(late * away, weights) / (_mean(late * late, weights) + 0.02)
    return (_mean(away * away, weights) + 1e-4).sqrt(), slope


class ProsodyHead(nn.Module):
    """Linear scores of prosody, for the labels of a student. It is fitted as a whole, not step by step."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.measure = Prosody()
        count = len(MEASURES)
        self.register_buffer("weight", torch.zeros(classes, count))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))

    def bounded(self, values: Tensor) -> Tensor:
        """Measures (N, M) no farther from the mean of the archive than `FARTHEST` deviations."""
        reach = FARTHEST * self.deviation
        return torch.minimum(torch.maximum(values, self.mean - reach), self.mean + reach)

    def within(self, values: Tensor, speakers: NDArray[np.int64]) -> Tensor:
        """z-scores of measures (N, M), within the speaker where he is known; as `SpeakerNorm.within`."""
        bounded = self.bounded(values)
        z = (bounded - self.mean) / self.deviation
        for rows in groups(speakers):
            variance, mean = torch.var_mean(bounded[rows], dim=0, correction=0)
            z[rows] = (bounded[rows] - mean) / torch.sqrt(variance + EPS)
        return z

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.weight.T + self.bias

    def normalise(self, values: Tensor) -> None:
        """Take mean and deviation from the measures (N, M) of an archive."""
        deviation, mean = torch.std_mean(values, dim=0, correction=0)
        self.mean, self.deviation = mean, deviation.clamp(min=EPS)
