"""The recogniser: a loaded bundle that turns samples into emotions."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines
from mifuse_runtime.audio import MAX_PEAK, Channel, Floats, checked, frame_energy, mono, trim_silence
from mifuse_runtime.batching import answer_of, answers, together
from mifuse_runtime.bundle import SPEECH, Bundle
from mifuse_runtime.decision import Decider, Prediction, Shares, View
from mifuse_runtime.errors import AudioError, BundleError
from mifuse_runtime.graph import Engine
from mifuse_runtime.resample import PIECE, resample
from mifuse_runtime.shares import odds
from mifuse_runtime.stream import Stream
from mifuse_runtime.vad import Vad, framed, loud_frames, share_of, speech_share

if TYPE_CHECKING:
    from mifuse_runtime.speaker import Speaker
    from mifuse_runtime.timeline import Timeline

SUM_TOLERANCE = 0.02  # of probabilities to 1: int8 rounds to 1/256
SHORTEST = 0.1  # seconds: shorter audio is followed by silence, so that any graph has a frame to look at


class Clip(NamedTuple):
    """A clip that is ready for the graph."""

    taken: Floats | None  # what the graph takes; None: nobody speaks
    end: float  # seconds
    speech: float = 1.0  # share of its frames
    loud: NDArray[np.bool_] | None = None  # its loud frames: the graph says which of them are speech


class Recognizer:
    """Emotions of speech, from a bundle. Safe to share between threads.

        recognizer = Recognizer.load("bundle/")
        recognizer.predict(samples, sample_rate=44_100).label

    `samples` are 1-D or (n, channels), float in [-1, 1] or int16; channels are averaged, rates resampled.
    """

    def __init__(
        self, folder: Path, bundle: Bundle, whole: Engine, body: Engine, odds: Shares | None = None
    ) -> None:
        self.bundle = bundle
        self._folder = folder
        self._odds = odds
        # Clips: samples to probabilities. Always this one, not what is faster on the day: rounding differs
        # between the two, and the answer to a clip must not differ from run to run.
        self._whole = whole
        self._body = body  # streams and known speakers: each frame is made once, or learnt from
        self._front = body.graph.front
        self._started: tuple[str, int, str | None] = (whole.name, 1, None)
        self._shares: Mapping[str, float] | None = None
        self._view: View | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        engine: str = "onnxruntime",
        threads: int = 1,
        precision: str | None = None,
        cache: str | Path | None = None,
        *,
        shares: Mapping[str, float] | None = None,
    ) -> Recognizer:
        """Load a bundle after checking the SHA-256 of its files.

        Args:
            path: the bundle's folder.
            engine: `onnxruntime`, `openvino`, or `auto`: the faster one for this bundle, timed once.
            threads: threads that the engine may use for one call.
            precision: `fp32` or `int8`; None is the bundle's default.
            cache: folder where `auto` notes its choice for other processes; None writes nothing.
            shares: how often emotions occur here, as in {"neutral": 0.7}; the rest is spread over the others.
                None: as where the student was adapted, or all alike.

        Raises:
            BundleError: the bundle is missing, changed, too new, or lacks that engine and precision.
            MifuseError: the engine is unknown or not installed.
        """
        bundle = bundles.load(path)
        note = Path(cache) if cache else None
        body = engines.start(Path(path), bundle, engine, precision, threads, cache=note, body=True)
        whole = body
        if body.graph.front:
            whole = engines.start(Path(path), bundle, body.name, precision, threads)
        if bundle.speaker:
            from mifuse_runtime.speaker import new_speaker

            new_speaker(Path(path), bundle)  # a damaged head is refused here, not at the ninth clip
        moved = None if shares is None else odds(bundle.labels, shares, bundle.shares)
        loaded = cls(Path(path), bundle, whole, body, moved)
        loaded._started, loaded._shares = (body.name, threads, precision), shares
        return loaded

    def __reduce__(self) -> tuple[object, ...]:
        """A recogniser is sent to another process as its bundle's path, and loaded there."""
        loaded = functools.partial(_reloaded, shares=self._shares, view=self._view)
        return loaded, (self._folder, *self._started)

    def __repr__(self) -> str:
        return f"<Recognizer {self._card}>"

    @property
    def _card(self) -> str:
        engine, threads, precision = self._started
        what = f"{precision or self.bundle.default} on {engine}, threads={threads}"
        return f"{self._folder}: {', '.join(self.labels or self.dimensions)}; {what}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions, in the order of the model's output; of a subset or groups, theirs.

        There are none of a model that says dimensions alone.
        """
        return self._view.labels if self._view else self.bundle.labels

    @property
    def dimensions(self) -> dict[str, tuple[float, float]]:
        """Such as arousal, name -> lowest and highest value; none of a model that says emotions alone."""
        return dict(self.bundle.dimensions)

    def subset(self, labels: Sequence[str]) -> Recognizer:
        """The same recogniser asked about some of its emotions alone: their scores sum to 1.

        Raises:
            MifuseError: fewer than two, or unknown ones.
        """
        from mifuse_runtime.groups import subset

        return self._viewed(*subset(self.labels, labels))

    def grouped(self, groups: Mapping[str, Sequence[str]]) -> Recognizer:
        """The same recogniser with several emotions as one, as in {"negative": ["angry", "sad"]}.

        Emotions of no group stay as they are; scores of a group are the sums of its emotions'.

        Raises:
            MifuseError: unknown emotions, one in two groups, or one group of all.
        """
        from mifuse_runtime.groups import grouping

        return self._viewed(*grouping(self.labels, groups))

    def _viewed(self, labels: tuple[str, ...], matrix: Shares) -> Recognizer:
        seen = copy.copy(self)  # the engines are shared
        seen._view = View(labels, self._view.matrix @ matrix if self._view else matrix)
        return seen

    @property
    def sample_rate(self) -> int:
        """The model's sample rate in Hz; `predict` takes it when none is given."""
        return self.bundle.sample_rate

    def speaker(self) -> Speaker:
        """Somebody of whom nothing is known yet, for `predict` and `stream`; `load` a file to go on with one.

        Raises:
            BundleError: the bundle has no head for known speakers.
        """
        if self._front is None:
            raise BundleError(f"{self._folder} has no body graph, which speakers need: export it again")
        from mifuse_runtime.speaker import new_speaker

        return new_speaker(self._folder, self.bundle)

    def predict(
        self,
        samples: ArrayLike,
        sample_rate: float | None = None,
        speaker: Speaker | None = None,
        *,
        channel: Channel = "mix",
        gate: bool = True,
    ) -> Prediction:
        """The emotion of one clip, looked at as a whole; silence at its ends is not.

        Where nobody speaks (the bundle's `stream.speech`), label and state are "no speech".

        Args:
            channel: of (n, channels): `mix` (their mean), `left`, `right` or a number from 0.
            gate: False: answer as if there were speech, as for measuring the model alone.
            speaker: who speaks; learns from the clip, and from the eighth on the answer is held against the
                others, which on new voices is more often right.

        Raises:
            AudioError: no samples, NaN or infinite ones, a type, shape or rate that cannot be used.
        """
        engine = self._body if speaker else self._whole
        clip = self._prepared(samples, sample_rate, channel, engine, gate=gate)
        answer = None if clip.taken is None else self._ask(engine, clip.taken[None])[0]
        return self._decided(clip, answer, speaker)

    def predict_batch(
        self,
        clips: Sequence[ArrayLike],
        sample_rate: float | None = None,
        speaker: Speaker | None = None,
        *,
        channel: Channel = "mix",
        gate: bool = True,
    ) -> list[Prediction]:
        """The emotion of each clip, as `predict` gives it; clips of equal length share runs of the graph.

        Raises:
            AudioError: as for `predict`; names the clip when there are several.
        """
        engine = self._body if speaker else self._whole
        ready: list[Clip] = []
        try:
            for clip in clips:
                ready.append(self._prepared(clip, sample_rate, channel, engine, gate=gate))  # noqa: PERF401
        except AudioError as error:
            raise error if len(clips) == 1 else AudioError(f"clip {len(ready)}: {error}") from error
        due = [number for number, clip in enumerate(ready) if clip.taken is not None]
        inputs = [clip.taken for clip in ready if clip.taken is not None]
        run = functools.partial(self._ask, engine)
        found = dict(zip(due, answers(inputs, run, engine.graph.taken_rate), strict=True))
        return [self._decided(clip, found.get(number), speaker) for number, clip in enumerate(ready)]

    def stream(
        self,
        sample_rate: float | None = None,
        window: float | None = None,
        hop: float = 0.5,
        vad: Vad | None = None,
        speaker: Speaker | None = None,
        *,
        channel: Channel = "mix",
    ) -> Stream:
        """A stream of predictions over audio that arrives in chunks at `sample_rate` Hz (None: the model's).

        Args:
            window: seconds that each prediction looks at; None is the bundle's, 3 s.
            hop: seconds between predictions.
            vad: finds speech instead of the bundle's own gate: called once for each 32 ms with float32
                samples (512 at 16 kHz), returns the probability of speech or a bool.
            speaker: who speaks; learns from windows of speech that do not overlap.
            channel: of chunks (n, channels), as for `predict`; one stream for each channel of a call, fed
                together by `feed_all`, says who felt what.

        Raises:
            AudioError: a rate, window, hop or channel that cannot be used.
        """
        rate = self.sample_rate if sample_rate is None else sample_rate
        window = self.bundle.window if window is None else window
        return Stream(
            *(functools.partial(self._ask, self._body), self._front, self.bundle, vad, speaker),
            rate=rate,
            window=window,
            hop=hop,
            channel=channel,
            odds=self._odds,
            view=self._view,
        )

    def timeline(
        self, samples: ArrayLike, sample_rate: float | None = None, *, channel: Channel = "mix"
    ) -> Timeline:
        """A recording split at its pauses, the emotion of each segment, and their shares of the time.

        Args:
            channel: as for `predict`; one timeline for each channel of a call says who felt what.

        Raises:
            AudioError: as for `predict`.
        """
        from mifuse_runtime.timeline import timeline

        rate = self.sample_rate if sample_rate is None else sample_rate
        ready = resample(checked(mono(samples, channel)), rate, self.sample_rate)
        return timeline(self, (ready[at : at + PIECE] for at in range(0, ready.size, PIECE)))

    def segment(self, start: int, samples: Floats, speech: float = 1.0) -> Prediction:
        """The emotion of a segment (n,) at the model's rate; it begins with sample `start` of a recording."""
        begin = start / self.sample_rate
        end = begin + samples.size / self.sample_rate
        return replace(self.predict(samples, gate=False), start=begin, end=end, speech=speech)

    def feed_all(self, streams: Sequence[Stream], chunks: Sequence[ArrayLike]) -> list[list[Prediction]]:
        """`stream.feed(chunk)` for each of many streams of this recogniser; windows due together share a run.

        Measured with the int8 student `s` on one thread: a window costs the same in a run of 8 as alone. It
        pays with `threads` above 1, and where one loop serves many connections.

        Raises:
            AudioError: as for `Stream.feed`, naming the stream of several. None has taken its chunk then.
            ValueError: a stream is given twice, or there are more or fewer chunks than streams.
        """
        if len({id(stream) for stream in streams}) != len(streams):
            raise ValueError("a stream is given twice: join its chunks")
        accepted: list[Floats] = []
        try:
            for stream, chunk in zip(streams, chunks, strict=True):
                accepted.append(stream.accept(chunk))
        except AudioError as error:
            raise error if len(streams) == 1 else AudioError(f"stream {len(accepted)}: {error}") from error
        feeds = [stream.steps(samples) for stream, samples in zip(streams, accepted, strict=True)]
        with contextlib.ExitStack() as held:
            for stream in streams:
                held.enter_context(stream.alone())
            return together(feeds, functools.partial(self._ask, self._body), self._body.graph.taken_rate)

    def _prepared(
        self, samples: ArrayLike, sample_rate: float | None, channel: Channel, engine: Engine, *, gate: bool
    ) -> Clip:
        """A clip as the engine takes it, without silence at its ends, as students learn from clips."""
        ready, rate = mono(samples, channel), self.sample_rate
        if sample_rate is not None and sample_rate != rate:
            ready = resample(checked(ready), sample_rate, rate)
        energy = frame_energy(ready, rate)
        # No sample is larger than the root of its frame's energy: most clips need no closer look.
        if not energy.size or not energy.max() < MAX_PEAK**2:
            checked(ready)
        end = ready.size / rate
        ready = trim_silence(ready, rate, energy)
        missing, settings, speech, loud = int(SHORTEST * rate) - ready.size, self.bundle.stream, 1.0, None
        if gate and SPEECH in engine.graph.outputs and missing <= 0 < settings.voice:
            loud = loud_frames(framed(ready, rate), settings)
            speech = float(loud.any())  # at most
        elif gate:
            speech = speech_share(ready, settings, rate)
        if speech < settings.speech:
            return Clip(None, end, speech)
        ready = np.pad(ready, (0, missing)) if missing > 0 else ready
        return Clip(engine.graph.front.clip(ready) if engine.graph.front else ready, end, speech, loud)

    def _decided(self, clip: Clip, answer: Floats | None, speaker: Speaker | None) -> Prediction:
        """The prediction from a row of the graph's answers to a clip; None where nobody speaks."""
        probs, speech, settings = None, clip.speech, self.bundle.stream
        if answer is not None and clip.loud is not None:
            speech = share_of(answer[self.bundle.answers :], clip.loud, settings)
        if answer is not None and clip.taken is not None and speech >= settings.speech:
            probs = answer_of(answer, self.bundle.answers, clip.taken, speaker)
        parts = (self.bundle.labels, settings, 1.0, self._odds, self._view)
        decider = Decider(*parts, dimensions=self.bundle.dimensions, demo=self.bundle.demo)
        return decider.decide(probs, 0.0, clip.end, speech)

    def _ask(self, engine: Engine, batch: Floats) -> Floats:
        """Answers (batch, C + V) to what the graph takes; behind them log odds of speech or an embedding."""
        found, *beside = engine.answers(batch)[:2]
        fits = found.shape == (len(batch), self.bundle.answers) and all(
            part.ndim == 2 and len(part) == len(batch) and math.isfinite(part.sum()) for part in beside
        )
        for row in found.tolist() if fits else [[]]:  # lists: NumPy takes three times as long on a row
            fits = all(0 <= value < 1 + SUM_TOLERANCE for value in row)
            total = sum(row[: len(self.bundle.labels)]) if self.bundle.labels else 1
            if not (fits and abs(total - 1) < SUM_TOLERANCE):
                what = "probabilities, or beside them not numbers from 0 to 1"
                raise BundleError(f"{self._card}: the model's answer is not {what}; export the bundle again")
        return np.concatenate([found, *beside], axis=1) if beside else found


def _reloaded(
    folder: Path, *started: Any, shares: Mapping[str, float] | None, view: View | None
) -> Recognizer:
    loaded = Recognizer.load(folder, *started, shares=shares)
    loaded._view = view
    return loaded
