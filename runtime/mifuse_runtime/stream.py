"""A stream: audio in chunks of any size, a prediction for each window."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mifuse_runtime.audio import Floats, checked, mono
from mifuse_runtime.errors import AudioError
from mifuse_runtime.resample import PIECE, Resampler

_LOGGER = logging.getLogger(__name__)

WINDOWS = (0.1, 60.0)  # seconds
HOPS = (0.01, 3600.0)  # seconds


@dataclass(frozen=True)
class Prediction:
    """An emotion and when: `scores` is label -> probability and sums to 1, `start` and `end` are seconds."""

    label: str
    scores: Mapping[str, float]
    start: float
    end: float


class Stream:
    """Windowed predictions; made by `Recognizer.stream`. Holds one window of audio. For one thread at a time.

    The first prediction comes when a whole window has been heard, then one every `hop` seconds.
    How the audio is cut into chunks makes no difference.
    """

    def __init__(
        self,
        recognise: Callable[[Floats, int], Prediction],
        model_rate: int,
        sample_rate: float,
        window: float,
        hop: float,
    ) -> None:
        for name, value, (low, high) in (("window", window, WINDOWS), ("hop", hop, HOPS)):
            if not low <= value <= high:
                raise AudioError(f"{name} is {value!r} s: {low:g} to {high:g} can be used")
        self._recognise = recognise
        self._resampler = Resampler(sample_rate, model_rate)
        self._window = round(window * model_rate)
        self._hop = max(1, round(hop * model_rate))
        self.reset()

    def reset(self) -> None:
        """Forget what was heard; time starts again at 0."""
        self._resampler.reset()
        self._heard: Floats = np.zeros(0, np.float32)
        self._first = 0  # index of self._heard[0] since the start
        self._next = 0  # index of the next window's first sample
        self._warned = False

    def feed(self, chunk: ArrayLike) -> list[Prediction]:
        """The predictions that the chunk completes, often none; the chunk is as for `Recognizer.predict`.

        NaN and infinite samples count as silence, with one warning in the log; an empty chunk is no error.

        Raises:
            AudioError: a type or shape that cannot be used; the stream goes on as if the chunk had not come.
        """
        samples = mono(chunk)
        if not samples.size:
            return []
        finite = np.isfinite(samples)
        if not finite.all():
            if not self._warned:
                _LOGGER.warning("the stream holds NaN or infinite samples: they count as silence")
            self._warned = True
            samples = np.where(finite, samples, np.float32(0))
        checked(samples)
        return [
            prediction
            for start in range(0, samples.size, PIECE)
            for prediction in self._hear(self._resampler.feed(samples[start : start + PIECE]))
        ]

    def _hear(self, samples: Floats) -> Iterator[Prediction]:
        self._heard = np.concatenate([self._heard, samples])
        while self._next + self._window <= self._first + self._heard.size:
            start = self._next - self._first
            yield self._recognise(self._heard[start : start + self._window], self._next)
            self._next += self._hop
        past = min(self._next - self._first, self._heard.size)
        self._heard = self._heard[past:].copy()
        self._first += past
