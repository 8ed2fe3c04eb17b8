"""A stream: audio in chunks of any size, a prediction for each window."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mifuse_runtime.audio import MAX_PEAK, Channel, Floats, Mixer, checked, mono, peak
from mifuse_runtime.batching import Run, Steps, answer_of, together
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.decision import Decider, Prediction, Shares, View
from mifuse_runtime.errors import AudioError, MifuseError
from mifuse_runtime.frontend import Frames, MelPower
from mifuse_runtime.resample import PIECE, Resampler
from mifuse_runtime.vad import Vad, VoiceGate

if TYPE_CHECKING:
    from mifuse_runtime.speaker import Speaker

WINDOWS = (0.1, 60.0)  # seconds
HOPS = (0.01, 3600.0)  # seconds


class Stream:
    """Windowed predictions; made by `Recognizer.stream`. For one thread at a time.

    The first prediction comes when a whole window is there, then one every `hop` seconds.
    How the audio is cut into chunks makes no difference. Memory and the work of a hop beside the graph do
    not grow: two windows of audio are held, and each frame is looked at and transformed once.

    With a body graph, windows begin where a frame begins, up to one frame's hop (16 ms) before their `start`.
    """

    def __init__(
        self,
        run: Run,
        front: MelPower | None,
        bundle: Bundle,
        vad: Vad | None,
        speaker: Speaker | None = None,
        *,
        rate: float,
        window: float,
        hop: float,
        channel: Channel = "mix",
        odds: Shares | None = None,
        view: View | None = None,
    ) -> None:
        for name, value, (low, high) in (("window", window, WINDOWS), ("hop", hop, HOPS)):
            if not low <= value <= high:
                raise AudioError(f"{name} is {value!r} s: {low:g} to {high:g} can be used")
        self._run = run
        self._rate = bundle.sample_rate
        self._needed = bundle.stream.speech  # share of a window
        self._resampler = Resampler(rate, self._rate)
        self.channel, self._mixer = channel, Mixer(channel)
        self._window = round(window * self._rate)
        self._hop = max(1, round(hop * self._rate))
        self._voice = VoiceGate(bundle.stream, self._rate, vad)
        self._eager = vad is not None  # one's own gate is called for each frame as it comes
        self._speaker, self._size = speaker, bundle.answers
        parts = (bundle.labels, bundle.stream, self._hop / self._rate, odds, view)
        self._decider = Decider(*parts, dimensions=bundle.dimensions, demo=bundle.demo)
        self._frames = Frames(front) if front else None
        self._grid = front.hop if front else 1  # samples: where windows begin
        self._busy = threading.Lock()
        self._buffer: Floats = np.zeros(2 * self._window + self._grid - 1, np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget what came before; time starts again at 0."""
        for part in (self._resampler, self._voice, self._decider, self._frames):
            if part:
                part.reset()
        self._filled = 0  # samples in the buffer, the last of them the latest
        self._received = self._sensed = 0  # samples since the start, and those that the voice gate was given
        self._next = 0  # index of the next window's first sample
        self._done = self._learnt = 0  # indices behind the last window, and the last that was learnt from
        self._mixer = Mixer(self.channel)
        self._warned = self._closed = False

    def feed(self, chunk: ArrayLike) -> list[Prediction]:
        """The predictions that the chunk completes, often none; the chunk is as for `Recognizer.predict`.

        NaN and infinite samples count as silence, with one warning in the log; an empty chunk is no error.

        Raises:
            AudioError: a type or shape that cannot be used, or the stream is closed; it goes on as if the
                chunk had not come.
            MifuseError: another thread feeds it at this moment; likewise.
        """
        with self.alone():
            return together([self.steps(self.accept(chunk))], self._run, self._rate / self._grid)[0]

    def close(self) -> list[Prediction]:
        """End the stream: what came since the last prediction is recognised, if it is 0.1 s or more."""
        if self._closed:
            return []
        with self.alone():
            self._closed = True
            return together([self._last_steps()], self._run, self._rate / self._grid)[0]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While a chunk is worked on, no other may come.

        Raises:
            MifuseError: another thread feeds the stream.
        """
        if not self._busy.acquire(blocking=False):
            raise MifuseError("two threads feed one stream: make one stream for each, or feed it in turn")
        try:
            yield
        finally:
            self._busy.release()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True

    def accept(self, chunk: ArrayLike) -> Floats:
        """The chunk as mono samples (n,) that can be used; raises as `feed` does."""
        if self._closed:
            raise AudioError("the stream is closed: make another one, or reset() it")
        samples = mono(chunk, self._mixer)
        highest = peak(samples) if samples.size else 0.0
        if not np.isfinite(highest):
            samples = np.where(np.isfinite(samples), samples, np.float32(0))
            if not self._warned:
                import logging  # 0.7 MB that hardly any stream needs

                logging.getLogger(__name__).warning("the stream's NaN or infinite samples count as silence")
            self._warned = True
        return samples if highest <= MAX_PEAK else checked(samples)

    def steps(self, samples: Floats) -> Steps:
        """`feed` with the graph left to the caller, see `together`."""
        found: list[Prediction] = []
        for start in range(0, samples.size, PIECE):
            found += yield from self._advance(self._resampler.feed(samples[start : start + PIECE]))
        return found

    def _last_steps(self) -> Steps:
        found = yield from self._advance(self._resampler.flush())
        if self._received > self._done and self._received - self._next >= WINDOWS[0] * self._rate:
            found += yield from self._look(self._received)
        return found

    def _advance(self, samples: Floats) -> Steps:
        found: list[Prediction] = []
        for start in range(0, samples.size, self._window):
            self._append(samples[start : start + self._window])
            while self._next + self._window <= self._received:
                found += yield from self._look(self._next + self._window)
        return found

    def _append(self, piece: Floats) -> None:
        if self._filled + piece.size > self._buffer.size:
            # Less than a window waits for later windows: each sample is moved once or twice, however small
            # the chunks are.
            self._sense()
            kept = max(0, min(self._received - self._next // self._grid * self._grid, self._filled))
            self._buffer[:kept] = self._buffer[self._filled - kept : self._filled]
            self._filled = kept
        self._buffer[self._filled : self._filled + piece.size] = piece
        self._filled += piece.size
        self._received += piece.size
        if self._eager:
            self._sense()

    def _sense(self) -> None:
        """Give the voice gate what is new, all at once: call by call, small chunks would cost most."""
        if self._sensed < self._received:
            self._voice.feed(self._buffer[self._filled - (self._received - self._sensed) : self._filled])
            self._sensed = self._received

    def _look(self, end: int) -> Steps:
        """The prediction for the samples from the next window's first to `end`."""
        start = self._next
        self._sense()
        speech = self._voice.share(start, end)
        answer = None
        if speech >= self._needed:
            first = start // self._grid
            ago = self._filled - self._received
            samples = self._buffer[first * self._grid + ago : end + ago]
            taken = self._frames.window(samples, first) if self._frames else samples
            new = start >= self._learnt
            answer = answer_of((yield taken), self._size, taken, self._speaker, learn=new)
            self._learnt = end if new else self._learnt
        self._next += self._hop
        self._done = end
        return [self._decider.decide(answer, start / self._rate, end / self._rate, speech)]
