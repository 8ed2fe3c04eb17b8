"""Any sample rate to the model's, in NumPy alone: a windowed-sinc polyphase filter, piece by piece."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mifuse_runtime.audio import Floats
from mifuse_runtime.errors import AudioError
from mifuse_runtime.frontend import ONE_THREAD

RATES = (1000, 768_000)  # Hz: what is taken
ZEROS = 64  # zero crossings of the sinc on each side
CUTOFF = 0.96  # of the lower Nyquist frequency; flat to 0.92, stopped from 1.0 on
BETA = 8.0  # Kaiser window: stop band 80 dB down
PIECE = 1 << 17  # samples taken at a time, so that memory stays flat on long audio
# Outputs of one product: more are more zeros, fewer are more calls. Measured from 8 to 192 kHz.
COLUMNS = 32


class Resampler:
    """Resamples a mono signal that comes in pieces of any size; the result does not depend on the pieces.

    Measured with sines at 8 to 192 kHz, to 16 kHz: up to 0.92 of the lower Nyquist frequency the error is
    below -80 dB of the sine, and what lies above 8 kHz comes out below -80 dB. A rate without a short ratio
    to the target (44,099 Hz) is taken as the nearest that has one, within 0.08 %.
    """

    def __init__(self, rate: float, target: int) -> None:
        # NumPy's numbers are numbers too; a complex one has no order.
        if not isinstance(rate, (int, float, np.integer, np.floating)) or isinstance(rate, bool):
            raise AudioError(f"sample rate is {rate!r}: a number of Hz is expected")
        if not RATES[0] <= rate <= RATES[1] or rate != int(rate):
            raise AudioError(f"sample rate is {rate!r}: {RATES[0]} to {RATES[1]} Hz can be used")
        self._down = self._up = 1
        if rate != target:
            from fractions import Fraction  # it loads `decimal`, 0.3 MB

            # 640 keeps the rates in use exact (11.025 kHz is 441/640 of 16 kHz) and the filter small.
            self._down, self._up = Fraction(int(rate), target).limit_denominator(640).as_integer_ratio()
        self.reset()

    def reset(self) -> None:
        """Forget the signal so far."""
        self._taken = self._given = 0
        if self._down != self._up:
            self._bank = _bank(self._down, self._up)
            self._rest: Floats = np.zeros(self._bank.taps // 2, np.float32)

    def feed(self, samples: Floats) -> Floats:
        """The output that the samples so far (n,) settle: the last few ms wait for what follows."""
        if self._down == self._up:
            return samples
        self._taken += samples.size
        bank, size = self._bank, self._rest.size + samples.size
        last = (self._up - 1) * self._down // self._up  # where the last phase's taps begin
        rows = max(0, (size - last - bank.taps) // self._down + 1)
        if not rows:
            self._rest = np.concatenate([self._rest, samples])
            return np.zeros(0, np.float32)
        blocks, step = -(-rows // bank.rows), bank.rows * self._down
        # Silence behind the samples fills the last block; what is made of it is cut off.
        held: Floats = np.zeros(max(size, blocks * step + bank.taps), np.float32)
        held[: self._rest.size], held[self._rest.size : size] = self._rest, samples
        out = np.empty((blocks, bank.rows * self._up), np.float32)
        at = 0
        for start, matrix in bank.parts:
            width, count = matrix.shape
            # `sliding_window_view` takes 10 us for the same, which is half of a chunk of 10 ms.
            windows = np.ndarray((blocks, width), np.float32, held, 4 * start, (4 * step, 4))
            most = max(1, ONE_THREAD // matrix.size)
            for first in range(0, blocks, most):
                taken = np.ascontiguousarray(windows[first : first + most])
                out[first : first + most, at : at + count] = taken @ matrix
            at += count
        self._rest = held[rows * self._down : size].copy()
        self._given += rows * self._up
        return out.reshape(-1)[: rows * self._up]

    def flush(self) -> Floats:
        """The rest of the output, as if silence followed; then ready for another signal."""
        rest = np.zeros(0, np.float32)
        if self._down != self._up:
            missing = -(-self._taken * self._up // self._down) - self._given
            rest = self.feed(np.zeros(self._bank.taps + 2 * self._down, np.float32))[:missing]
        self.reset()
        return rest


def resample(samples: Floats, rate: float, target: int) -> Floats:
    """The mono signal (n,) at `target` Hz, ceil(n * target / rate) samples.

    >>> resample(np.zeros(441, np.float32), 44_100, 16_000).shape
    (160,)

    Raises:
        AudioError: a rate that cannot be used.
    """
    resampler = Resampler(rate, target)
    pieces = [resampler.feed(samples[i : i + PIECE]) for i in range(0, samples.size, PIECE)]
    return np.concatenate([*pieces, resampler.flush()])


class Bank(NamedTuple):
    """The filters as matrices: input (blocks, width) @ matrix = output (blocks, count)."""

    taps: int
    rows: int  # times `up` outputs are a block
    parts: tuple[tuple[int, Floats], ...]  # where in a block's input it begins, matrix (width, count)


@lru_cache(maxsize=4)
def _bank(down: int, up: int) -> Bank:
    filters = _filters(down, up)
    taps = filters.shape[1]
    rows = max(1, COLUMNS // up)
    starts = np.arange(rows * up) * down // up
    parts = []
    for columns in np.array_split(np.arange(rows * up), -(-rows * up // COLUMNS)):
        begins = starts[columns] - starts[columns[0]]
        matrix = np.zeros((begins[-1] + taps, columns.size), np.float32)
        for column, (begin, phase) in enumerate(zip(begins, columns % up, strict=True)):
            matrix[begin : begin + taps, column] = filters[phase]
        parts.append((int(starts[columns[0]]), matrix))
    return Bank(taps, rows, tuple(parts))


def _filters(down: int, up: int) -> Floats:
    """One filter for each phase of the output between two inputs, (up, taps)."""
    stretch = max(1.0, down / up)
    half = math.ceil(ZEROS * stretch)
    between = np.arange(up) * down % up / up
    offset = (np.arange(2 * half + 1) - half - between[:, None]) / stretch
    window = np.i0(BETA * np.sqrt(np.maximum(0, 1 - (offset / ZEROS) ** 2)))
    bank = np.sinc(CUTOFF * offset) * window * (np.abs(offset) < ZEROS)
    filters: Floats = (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)
    return filters
