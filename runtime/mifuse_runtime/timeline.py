"""A timeline: a recording split at its pauses, the emotion of each segment, and their shares of the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mifuse_runtime.audio import Floats
from mifuse_runtime.decision import Prediction
from mifuse_runtime.settings import NO_SPEECH, SPOKEN, Settings
from mifuse_runtime.vad import FRAME, framed, speech_frames

if TYPE_CHECKING:
    from mifuse_runtime.recognizer import Recognizer

PAUSE = 0.5  # seconds without speech that end a segment
SHORT_PAUSE = 0.1  # that a segment which became too long is split at
SHORTEST, LONGEST = 1.0, 15.0  # seconds of a segment; one that is shorter waits for a pause twice as long
FEWEST = 8  # frames of speech (0.26 s) without which it is no segment
UNKNOWN = "unknown"  # whose turn it is: voices within a channel are not separated


@dataclass(frozen=True)
class Timeline:
    """Segments of a recording of `duration` seconds in order; `start` and `end` are seconds."""

    duration: float
    segments: tuple[Prediction, ...]
    demo: bool = False  # as of `Prediction`

    @property
    def speech(self) -> float:
        """Seconds within segments."""
        return sum(segment.end - segment.start for segment in self.segments)

    @property
    def shares(self) -> dict[str, float]:
        """State -> share of the time within segments, the largest first; empty without speech."""
        spent: dict[str, float] = {}
        for segment in self.segments:
            spent[segment.state] = spent.get(segment.state, 0.0) + segment.end - segment.start
        return {state: spent[state] / self.speech for state in sorted(spent, key=lambda s: -spent[s])}

    @property
    def dimensions(self) -> dict[str, float]:
        """Mean of each dimension over the time within segments; empty without speech."""
        names = self.segments[0].dimensions if self.segments else ()
        return {
            name: sum(one.dimensions[name] * (one.end - one.start) for one in self.segments) / self.speech
            for name in names
        }

    def summary(self, labels: Iterable[str]) -> Prediction:
        """The segments as one prediction: scores, dimensions weighted by time, the state of most of it."""
        names = tuple(labels)
        if not self.segments:
            equal = {name: 1 / len(names) for name in names}
            return Prediction(NO_SPEECH, equal, 0.0, self.duration, NO_SPEECH, 0.0, 0.0, demo=self.demo)
        weights = np.array([segment.end - segment.start for segment in self.segments])
        rows = np.array([[segment.scores[name] for name in names] for segment in self.segments])
        mean = weights @ rows / weights.sum()
        scores = dict(zip(names, mean.tolist(), strict=True))
        state, share = next(iter(self.shares)), min(1.0, self.speech / self.duration)
        label = names[int(mean.argmax())] if names else SPOKEN
        return Prediction(
            *(label, scores, 0.0, self.duration, state, float(mean.max(initial=0.0)), share),
            dimensions=self.dimensions,
            demo=self.demo,
        )

    def to_dict(self, labels: Iterable[str]) -> dict[str, Any]:
        """The summary's fields, `shares`, and `segments` with a speaker each, for JSON."""
        rows = [{**asdict(segment), "speaker": UNKNOWN} for segment in self.segments]
        return {**asdict(self.summary(labels)), "shares": self.shares, "segments": rows}


def timeline(recognizer: Recognizer, blocks: Iterable[Floats]) -> Timeline:
    """The timeline of mono blocks (n,) at the model's rate; memory does not grow with their number."""
    rate = recognizer.sample_rate
    segmenter = Segmenter(recognizer.bundle.stream, rate, longest=2 * recognizer.bundle.window)
    found = [
        recognizer.segment(start, samples, speech)
        for block in blocks
        for start, samples, speech in segmenter.feed(block)
    ]
    found += [recognizer.segment(*rest) for rest in segmenter.flush()]
    return Timeline(segmenter.taken / rate, tuple(found), recognizer.bundle.demo)


class Segmenter:
    """Splits a signal that comes in blocks at its pauses; holds the segment that is open, not more."""

    def __init__(
        self, settings: Settings, rate: int, shortest: float = SHORTEST, longest: float = LONGEST
    ) -> None:
        self._settings, self._rate = settings, rate
        self._frame = round(FRAME * rate)
        lengths = (PAUSE, SHORT_PAUSE, shortest)
        frames = (max(1, round(seconds * rate / self._frame)) for seconds in lengths)
        self._pause, self._short, self._least = frames
        self._most = max(self._least, int(longest * rate) // self._frame)
        self.taken = 0  # samples so far
        self._held: Floats = np.zeros(0, np.float32)  # from the open segment's start on
        self._base = 0  # index of its first sample
        self._past: Any = None
        self._speech: list[bool] = []  # of the frames of the open segment

    def feed(self, samples: Floats) -> Iterator[tuple[int, Floats, float]]:
        """The segments that end in the next samples (n,): first sample, samples, share of speech."""
        self.taken += samples.size
        self._held = np.concatenate([self._held, samples])
        done = len(self._speech) * self._frame
        fresh, self._past = speech_frames(framed(self._held[done:], self._rate), self._settings, self._past)
        first = 0  # frame of the open segment within `_held`
        speech = self._speech
        quiet = len(speech) - 1 - _last(speech)
        for is_speech in fresh.tolist():
            if not speech and not is_speech:
                first += 1
                continue
            speech.append(is_speech)
            quiet = 0 if is_speech else quiet + 1
            if quiet < self._pause and len(speech) < self._most:
                continue
            size = self._ended(speech)
            while size:
                yield from self._segment(first, speech[:size])
                gone = _leading(speech, size)
                first += gone
                del speech[:gone]
                size = self._ended(speech) if len(speech) >= self._most else 0
        kept = first * self._frame
        self._held, self._base = self._held[kept:].copy(), self._base + kept

    def flush(self) -> Iterator[tuple[int, Floats, float]]:
        """The segment that is open at the end."""
        if self._speech:
            yield from self._segment(0, self._speech)
        self._speech = []

    def _ended(self, speech: list[bool]) -> int:
        """Frames of the segment if it has ended, else 0."""
        size = len(speech)
        quiet = size - 1 - _last(speech)
        if quiet >= self._pause * (1 if size - quiet >= self._least else 2):
            return size
        if size < self._most:
            return 0
        # The latest short pause in the second half, or else the middle of a word.
        run = 0
        for at in range(size - 1, size // 2, -1):
            run = 0 if speech[at] else run + 1
            if run >= self._short:
                return at + run // 2
        return size

    def _segment(self, first: int, speech: list[bool]) -> Iterator[tuple[int, Floats, float]]:
        size = _last(speech) + 1
        if sum(speech) >= FEWEST:
            samples = self._held[first * self._frame : (first + size) * self._frame]
            yield self._base + first * self._frame, samples, sum(speech) / size


def _last(speech: list[bool]) -> int:
    """Index of the last frame of speech; -1 without."""
    for at in range(len(speech) - 1, -1, -1):
        if speech[at]:
            return at
    return -1


def _leading(speech: list[bool], size: int) -> int:
    """Frames to leave: those of the segment, and those without speech behind it."""
    while size < len(speech) and not speech[size]:
        size += 1
    return size
