"""Samples to mel power, in NumPy: what a bundle's body graph takes, each frame computed once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mifuse_runtime.audio import Floats
from mifuse_runtime.settings import FrontEnd

CHUNK = 30  # frames at a time: their spectra stay in the cache
# Multiplications of a product. OpenBLAS starts threads for more, which wait for each other on a few cores.
ONE_THREAD = 1 << 18


class MelPower:
    """Mel power of clips and of the windows of streams. Holds constants only: threads may share it."""

    def __init__(self, settings: FrontEnd, rate: int) -> None:
        self.hop, self.mels, self._folded = settings.hop, settings.mels, settings.folded
        self.columns, self._even = settings.columns, (settings.lowest + 1) // 2
        self._odd = odd_bins(self.hop, settings.lowest // 2)
        self._filters = filters(settings, rate)
        self._rows = max(1, ONE_THREAD // self._filters.size)
        self._rising, self._falling = halves(self.hop)

    def clip(self, samples: Floats) -> Floats:
        """Mel power (frames, columns) of samples (n,): a frame for each hop that begins in them, and one."""
        return Frames(self).window(samples, 0)

    def of_hops(self, hops: Floats) -> Floats:
        """Mel power (k, columns) of the k frames over hops (k + 1, hop)."""
        power = np.empty((len(hops) - 1, self.columns), np.float32)
        for at in range(0, len(power), CHUNK):
            out = power[at : at + CHUNK]
            near = hops[at : at + len(out) + 1]
            first, second = near[:-1] * self._rising, near[1:] * self._falling
            spectra = np.fft.rfft(first + second if self._folded else np.concatenate([first, second], axis=1))
            squares = spectra.real**2 + spectra.imag**2
            for row in range(0, len(out), self._rows):
                part = slice(row, row + self._rows)
                np.matmul(squares[part], self._filters, out=out[part, : self.mels])
            if self._even:
                out[:, self.mels : self.mels + self._even] = squares[:, : self._even]
                real, imaginary = np.split((first - second) @ self._odd, 2, axis=1)
                out[:, self.mels + self._even :] = real**2 + imaginary**2
        return power


class Frames:
    """Mel power of one window of a stream after the other; frames that two of them share are made once."""

    def __init__(self, front: MelPower) -> None:
        self._front = front
        self.reset()

    def reset(self) -> None:
        """Forget the last window."""
        self._first = self._end = 0  # of the last window, in hops: where it begins, where its whole ones end
        self._power: Floats = np.zeros((0, self._front.columns), np.float32)

    def window(self, samples: Floats, first: int) -> Floats:
        """Mel power (frames, columns) of the samples (n,) of a window that begins with hop `first`.

        Windows come in order. What is returned is read again for the next one.
        """
        hop = self._front.hop
        count = -(-samples.size // hop)
        power = np.empty((count + 1, self._front.columns), np.float32)
        # Frames over two whole hops of both windows are there. Those at a window's ends lie over silence too.
        kept = max(0, self._end - 1 - first)
        power[1 : 1 + kept] = self._power[1 + first - self._first :][:kept]
        lead = 1 + bool(kept)  # silence and, where it does not come next anyway, the first hop
        hops = np.zeros((lead + count - kept + 1, hop), np.float32)
        hops.reshape(-1)[lead * hop :][: samples.size - kept * hop] = samples[kept * hop :]
        if kept:
            hops[1] = samples[:hop]
        fresh = self._front.of_hops(hops)
        power[0], power[1 + kept :] = fresh[0], fresh[lead:]
        self._first, self._end, self._power = first, first + samples.size // hop, power
        return power


@lru_cache(maxsize=8)
def halves(hop: int) -> tuple[Floats, Floats]:
    """Both halves (hop,) of a frame's window, which has the sum 1: a sine has one power at any rate."""
    window = np.hanning(2 * hop + 1)[:-1]
    rising, falling = (window / window.sum()).astype(np.float32).reshape(2, -1)
    return rising, falling


@lru_cache(maxsize=8)
def odd_bins(hop: int, count: int) -> Floats:
    """Cosines and sines (hop, 2 * count): times the difference of a frame's halves, its odd bins."""
    angle = np.pi / hop * np.arange(hop)[:, None] * np.arange(1, 2 * count, 2)
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def filters(settings: FrontEnd, rate: int) -> Floats:
    """Triangular filters over the bins of the real DFT, (bins, mels)."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (settings.low, settings.high))
    centres = 700 * (10 ** (np.linspace(low, high, settings.mels + 2) / 2595) - 1)
    bins = np.arange(0, settings.hop + 1, 1 + settings.folded)[:, None] * (rate / (2 * settings.hop))
    rising = (bins - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - bins) / (centres[2:] - centres[1:-1])
    triangles: Floats = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return triangles
