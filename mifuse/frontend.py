"""Waveform to normalised log-mel, written so that training and the exported graph run the same operations.

The frames overlap by exactly one half, so framing is a reshape. The real DFT is split once by decimation
in time and twice by decimation in frequency: a fifth of the multiplications of one dense DFT matrix, no
complex numbers, no FFT operator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mifuse.audio import SAMPLE_RATE, SILENCE_DB

__all__ = ["HOP", "N_FFT", "N_MELS", "SAMPLE_RATE", "LogMel", "mel_filters"]

N_FFT = 512  # samples: 32 ms
HOP = N_FFT // 2  # samples: 16 ms
N_MELS = 64
MEL_RANGE = (60.0, 7600.0)  # Hz
FLOOR = 1e-7  # power of a mel bin relative to the loudest frame: -70 dB
SILENT = 1e-12  # power: a clip whose loudest frame is below it is digital silence


def mel_filters() -> Tensor:
    """Triangular HTK mel filters over the DFT bins, (N_FFT // 2 + 1, N_MELS)."""
    low, high = (2595 * math.log10(1 + f / 700) for f in MEL_RANGE)
    centres = 700 * (10 ** (torch.linspace(low, high, N_MELS + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(N_FFT // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / N_FFT
    rising = (bins[:, None] - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - bins[:, None]) / (centres[2:] - centres[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def _dft(bins: Tensor, length: int) -> Tensor:
    """Real and imaginary DFT rows of `bins` over the first even and odd samples, (2, 1, length, 2 * bins)."""
    samples = torch.arange(2 * length, dtype=torch.float64).reshape(length, 1, 2).permute(2, 1, 0)
    angle = 2 * math.pi / N_FFT * samples[..., None] * bins
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class LogMel(nn.Module):
    """(batch, samples) in [-1, 1] -> log-mel (batch, N_MELS, frames) and speech mask (batch, 1, frames).

    Each mel bin has zero mean over the clip's speech frames, so that level and microphone drop out.
    Frames more than `SILENCE_DB` below the loudest one, zero padding among them, are zero in both outputs.
    """

    dft0: Tensor
    dft1: Tensor
    dft2: Tensor
    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        bins = torch.arange(N_FFT // 4 + 1, dtype=torch.float64)  # the others mirror them
        # Decimation in frequency: bins 4k from the samples folded twice, the others from the differences.
        parts = [(bins[0::4], N_FFT // 8), (bins[2::4], N_FFT // 8), (bins[1::2], N_FFT // 4)]
        for i, (part, length) in enumerate(parts):
            self.register_buffer(f"dft{i}", _dft(part, length).float(), persistent=False)
        order, filters = torch.cat([part for part, _ in parts]).long(), mel_filters()
        mirrored = filters[N_FFT // 2 - order]
        mirrored[order == N_FFT // 4] = 0  # the middle bin is its own mirror
        self.register_buffer("filters", torch.cat([filters[order], mirrored]).float(), persistent=False)
        window = torch.hann_window(N_FFT, dtype=torch.float64).reshape(-1, 2).T[:, None, None]
        self.register_buffer("window", (window / window.sum()).float(), persistent=False)

    def power(self, samples: Tensor) -> Tensor:
        """Mel power, (batch, frames, N_MELS)."""
        batch, count = samples.shape
        # One hop of zeros on each side, and enough to fill the last hop: any length gives a frame.
        hops = nn.functional.pad(samples, (HOP, HOP + -count % HOP)).reshape(batch, -1, HOP // 2, 2)
        hops = hops.permute(3, 0, 1, 2)  # even and odd samples apart
        half, quarter = HOP // 2, HOP // 4
        first, second = hops[:, :, :-1] * self.window[..., :half], hops[:, :, 1:] * self.window[..., half:]
        total, difference = first + second, first - second
        left, right = total[..., :quarter], total[..., quarter:]
        spectra: list[Tensor] = []
        mirrored: list[Tensor] = []
        for x, matrix in ((left + right, self.dft0), (left - right, self.dft1), (difference, self.dft2)):
            even, odd = (x @ matrix).unbind()
            # Decimation in time: bin k is the sum of both, bin N_FFT / 2 - k the conjugate of the difference.
            for part, into in ((even + odd, spectra), (even - odd, mirrored)):
                real, imaginary = part.chunk(2, dim=-1)
                into.append(real * real + imaginary * imaginary)
        return torch.cat(spectra + mirrored, dim=-1) @ self.filters

    def logmel(self, samples: Tensor) -> Tensor:
        """Log mel power relative to the loudest frame, (batch, frames, N_MELS): any level, one scale."""
        power = self.power(samples)
        loudest = power.sum(dim=-1, keepdim=True).amax(dim=1, keepdim=True)
        return torch.log(power / loudest.clamp(min=SILENT) + FLOOR)

    def normalise(self, logmel: Tensor) -> tuple[Tensor, Tensor]:
        """Output of `logmel` -> features (batch, N_MELS, frames) and speech mask (batch, 1, frames)."""
        mask = (logmel.exp().sum(dim=-1, keepdim=True) > 10 ** (-SILENCE_DB / 10)).to(logmel.dtype)
        mean = (logmel * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return ((logmel - mean) * mask).transpose(1, 2), mask.transpose(1, 2)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        return self.normalise(self.logmel(samples))
