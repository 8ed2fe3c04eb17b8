"""Waveform to normalised log-mel, written so that training and the exported graph run the same operations.

The frames overlap by exactly one half, so framing is a reshape and a shift. The halves of a windowed frame
are added before the DFT, which leaves every second bin of its spectrum: half the work, and the main lobe of
the window is twice as wide. The DFT is two dense steps over 16 samples each (Cooley and Tukey, 1965): no
complex numbers, no FFT operator. Frames lie along the last axis, where no step has to move anything.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mifuse.clips.audio import SAMPLE_RATE
from mifuse_runtime.audio import SILENCE_DB
from mifuse_runtime.speaker import FLOOR, SILENT

__all__ = ["FLOOR", "HOP", "N_MELS", "SAMPLE_RATE", "WINDOW", "LogMel", "mel_filters"]

WINDOW = 512  # samples: 32 ms
HOP = WINDOW // 2  # samples: 16 ms; as many points has the DFT
STRIDE = 16  # samples: the first step takes every 16th of a hop, the second what it made of 16 neighbours
N_MELS = 32
LOW_BINS = 33  # of the whole DFT of a frame, up to 1 kHz: pitch is read from them
MEL_RANGE = (60.0, 7600.0)  # Hz


FrontEndOutput = tuple[Tensor, Tensor, Tensor]


def mel_filters() -> Tensor:
    """Triangular HTK mel filters over the DFT bins, (HOP // 2 + 1, N_MELS)."""
    low, high = (2595 * math.log10(1 + f / 700) for f in MEL_RANGE)
    centres = 700 * (10 ** (torch.linspace(low, high, N_MELS + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(HOP // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / HOP
    rising = (bins[:, None] - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - bins[:, None]) / (centres[2:] - centres[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def _coarse(bins: Tensor) -> Tensor:
    """Real and imaginary rows of each bin over every `STRIDE`th sample of a hop, (2 * bins, HOP / STRIDE)."""
    angle = 2 * math.pi / HOP * bins[:, None] * torch.arange(0, HOP, STRIDE)
    return torch.stack([angle.cos(), angle.sin()], dim=1).flatten(0, 1)


def _fine(bins: Tensor) -> Tensor:
    """Bins (n, k) from what n coarse ones made of `STRIDE` neighbours, (n, 2 * k, 2 * STRIDE)."""
    turns = bins[..., None, None] * torch.arange(STRIDE) / HOP + torch.arange(2)[:, None] / 4
    angle = 2 * math.pi * turns.flatten(2)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class LogMel(nn.Module):
    """(batch, samples) in [-1, 1] -> log-mel (batch, N_MELS, frames), mask (batch, 1, frames), spectrum.

    Each mel bin has zero mean over the clip's speech frames, so that level and microphone drop out. What
    drops out is the spectrum, (batch, 2 * N_MELS): mean and deviation of each mel bin over these frames.
    Frames more than `SILENCE_DB` below the loudest one, zero padding among them, are zero in both.
    """

    bins: Tensor | None  # None: its spectrum is another one
    coarse: Tensor
    fine: Tensor
    filters: Tensor
    window: Tensor
    odd: Tensor
    even: Tensor

    def __init__(self) -> None:
        super().__init__()
        turn = HOP // STRIDE  # bins that one coarse bin holds are that far apart
        coarse = torch.arange(turn // 2 + 1, dtype=torch.float64)  # those beyond a half turn mirror these
        bins = coarse[:, None] + torch.arange(-HOP // 2, HOP // 2, turn)
        order = bins.flatten().abs().long()  # some come twice, as k and -k
        filters = mel_filters()[order] / order.bincount()[order, None]
        window = torch.hann_window(WINDOW, dtype=torch.float64)[:, None]
        # Which bin each row of the spectrum is: an exported graph finds speech in it, too.
        self.register_buffer("bins", order, persistent=False)
        self.register_buffer("coarse", _coarse(coarse).float(), persistent=False)
        self.register_buffer("fine", _fine(bins).float(), persistent=False)
        self.register_buffer("filters", filters.float(), persistent=False)
        self.register_buffer("window", (window / window.sum()).float(), persistent=False)
        # A folded frame has the even bins; for the odd ones its second half is subtracted.
        turns = torch.arange(HOP)[:, None] * torch.arange(1, LOW_BINS, 2, dtype=torch.float64)
        angle = math.pi / HOP * turns
        self.register_buffer("odd", torch.cat([angle.cos(), angle.sin()], dim=1).float(), persistent=False)
        even = [int((order == k).nonzero()[0]) for k in range((LOW_BINS + 1) // 2)]
        self.register_buffer("even", torch.tensor(even), persistent=False)

    def power(self, samples: Tensor, low: bool = False) -> Tensor:
        """Mel power, (batch, frames, N_MELS); with `low`, that of the lowest bins behind it, + LOW_BINS."""
        batch, count = samples.shape
        # One hop of zeros before a clip, and enough to fill its last hop: any length gives a frame. What
        # follows a clip are the zeros before the next one, so that the hops of all clips make one row.
        hops = nn.functional.pad(samples, (HOP, -count % HOP)).reshape(-1, HOP).T.contiguous()
        rising, falling = hops * self.window[:HOP], nn.functional.pad(hops, (-1, 1)) * self.window[HOP:]
        parts = (self.coarse @ (rising + falling).reshape(HOP // STRIDE, -1)).reshape(
            len(self.fine), 2 * STRIDE, -1
        )
        real, imaginary = (self.fine @ parts).chunk(2, dim=1)
        squares = (real * real + imaginary * imaginary).flatten(0, 1)
        mel = (squares.T @ self.filters).reshape(batch, -1, N_MELS)
        if not low:
            return mel
        real, imaginary = ((rising - falling).T @ self.odd).chunk(2, dim=1)
        between = (real * real + imaginary * imaginary).reshape(batch, -1, LOW_BINS // 2)
        return torch.cat(
            [mel, squares.index_select(0, self.even).T.reshape(batch, mel.shape[1], -1), between], dim=2
        )

    @staticmethod
    def relative(power: Tensor) -> Tensor:
        """Mel power relative to the loudest frame, and `FLOOR`, (batch, frames, N_MELS): any level."""
        loudest = power.sum(dim=-1, keepdim=True).amax(dim=1, keepdim=True)
        return power / loudest.clamp(min=SILENT) + FLOOR

    def logmel(self, samples: Tensor) -> Tensor:
        """Log of `relative`, (batch, frames, N_MELS)."""
        return self.relative(self.power(samples)).log()

    def normalise(self, logmel: Tensor, relative: Tensor | None = None) -> FrontEndOutput:
        """Output of `logmel` -> features (batch, N_MELS, frames), speech mask and spectrum.

        Args:
            relative: what `logmel` is the logarithm of, where that is at hand.
        """
        relative = logmel.exp() if relative is None else relative
        mask = (relative.sum(dim=-1, keepdim=True) > 10 ** (-SILENCE_DB / 10)).to(logmel.dtype)
        weight = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
        mean = weight.transpose(1, 2) @ logmel
        x = (logmel - mean) * mask
        deviation = torch.sqrt(weight.transpose(1, 2) @ (x * x) + 1e-5)
        return x.transpose(1, 2), mask.transpose(1, 2), torch.cat([mean, deviation], dim=2)[:, 0]

    def forward(self, samples: Tensor, low: bool = False) -> tuple[Tensor, ...]:
        """Log-mel, mask and spectrum; with `low` also the power that they come from, as of `power`."""
        power = self.power(samples, low)
        relative = self.relative(power[..., :N_MELS] if low else power)
        found = self.normalise(relative.log(), relative)
        return (*found, power) if low else found
