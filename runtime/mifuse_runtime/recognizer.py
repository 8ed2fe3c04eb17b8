"""The recogniser: a loaded bundle that turns samples into emotions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines
from mifuse_runtime.audio import Channel, Floats, checked, mono, trim_silence
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.decision import Decider, Prediction, Shares
from mifuse_runtime.errors import AudioError, BundleError
from mifuse_runtime.graph import Engine
from mifuse_runtime.resample import PIECE, resample
from mifuse_runtime.shares import odds
from mifuse_runtime.stream import Steps, Stream, heard, together
from mifuse_runtime.vad import Vad, speech_share

if TYPE_CHECKING:
    from mifuse_runtime.speaker import Speaker
    from mifuse_runtime.timeline import Timeline

SUM_TOLERANCE = 0.02  # of probabilities to 1: int8 rounds to 1/256
SHORTEST = 0.1  # seconds: shorter audio is followed by silence, so that any graph has a frame to look at


class Recognizer:
    """Emotions of speech, from a bundle. Safe to share between threads.

        recognizer = Recognizer.load("bundle/")
        recognizer.predict(samples, sample_rate=44_100).label

    `samples` are 1-D or (n, channels), float in [-1, 1] or int16; channels are averaged, rates resampled.
    """

    def __init__(
        self, folder: Path, bundle: Bundle, engine: Engine, card: str, odds: Shares | None = None
    ) -> None:
        self.bundle = bundle
        self._odds = odds
        self._folder = folder
        self._engine = engine
        self._front = engine.graph.front
        self._rate = bundle.sample_rate / (self._front.hop if self._front else 1)  # of what the graph takes
        self._card = card
        self._started: tuple[str, int, str | None] = (engine.name, 1, None)
        self._shares: Mapping[str, float] | None = None

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
        started = engines.start(Path(path), bundle, engine, precision, threads, cache=note, body=True)
        if bundle.speaker:
            from mifuse_runtime.speaker import new_speaker

            new_speaker(Path(path), bundle)  # a damaged head is refused here, not at the ninth clip
        what = f"{precision or bundle.default} on {started.name}, threads={threads}"
        moved = None if shares is None else odds(bundle.labels, shares, bundle.shares)
        loaded = cls(Path(path), bundle, started, f"{path}: {', '.join(bundle.labels)}; {what}", moved)
        loaded._started, loaded._shares = (started.name, threads, precision), shares
        return loaded

    def __reduce__(self) -> tuple[object, ...]:
        """A recogniser is sent to another process as its bundle's path, and loaded there."""
        return functools.partial(Recognizer.load, shares=self._shares), (self._folder, *self._started)

    def __repr__(self) -> str:
        return f"<Recognizer {self._card}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions, in the order of the model's output."""
        return self.bundle.labels

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
        return self.predict_batch([samples], sample_rate, speaker, channel=channel, gate=gate)[0]

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
        rate = self.sample_rate if sample_rate is None else sample_rate
        ready: list[Floats] = []
        try:
            for clip in clips:
                ready.append(resample(checked(mono(clip, channel)), rate, self.sample_rate))  # noqa: PERF401
        except AudioError as error:
            raise error if len(clips) == 1 else AudioError(f"clip {len(ready)}: {error}") from error
        feeds = [self._clip(samples, speaker, gate) for samples in ready]
        return [found[0] for found in together(feeds, self._run, self._rate)]

    def stream(
        self,
        sample_rate: float | None = None,
        window: float | None = None,
        hop: float = 0.5,
        vad: Vad | None = None,
        speaker: Speaker | None = None,
    ) -> Stream:
        """A stream of predictions over audio that arrives in chunks at `sample_rate` Hz (None: the model's).

        Args:
            window: seconds that each prediction looks at; None is the bundle's, 3 s.
            hop: seconds between predictions.
            vad: what tells speech instead of the bundle's own gate: called once for each 32 ms with float32
                samples (512 at 16 kHz), returns the probability of speech or a bool.
            speaker: who speaks; learns from windows of speech that do not overlap.

        Raises:
            AudioError: a rate, window or hop that cannot be used.
        """
        rate = self.sample_rate if sample_rate is None else sample_rate
        window = self.bundle.window if window is None else window
        return Stream(
            *(self._run, self._front, self.bundle, vad, speaker),
            rate=rate,
            window=window,
            hop=hop,
            odds=self._odds,
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
        steps = self._clip(samples, None, False)
        found = together([steps], self._run, self._rate)[0][0]
        return replace(found, start=begin, end=end, speech=speech)

    def feed_all(self, streams: Sequence[Stream], chunks: Sequence[ArrayLike]) -> list[list[Prediction]]:
        """`stream.feed(chunk)` for each of many streams of this recogniser; windows due together share a run.

        Measured with the int8 student `s` on one thread: a window costs the same in a run of 8 as alone. It
        pays with `threads` above 1, and where one loop serves many connections.

        Raises:
            AudioError: as for `Stream.feed`; names the stream. None of them has heard its chunk then.
            ValueError: a stream is given twice, or there are more or fewer chunks than streams.
        """
        if len({id(stream) for stream in streams}) != len(streams):
            raise ValueError("a stream is given twice: join its chunks")
        accepted: list[Floats] = []
        try:
            for stream, chunk in zip(streams, chunks, strict=True):
                accepted.append(stream.accept(chunk))
        except AudioError as error:
            raise AudioError(f"stream {len(accepted)}: {error}") from error
        feeds = [stream.steps(samples) for stream, samples in zip(streams, accepted, strict=True)]
        with contextlib.ExitStack() as held:
            for stream in streams:
                held.enter_context(stream.alone())
            return together(feeds, self._run, self._rate)

    def _clip(self, samples: Floats, speaker: Speaker | None, gate: bool) -> Steps:
        end = samples.size / self.sample_rate
        samples = trim_silence(samples, self.sample_rate)  # as of the clips that students learn from
        decider, settings = Decider(self.labels, self.bundle.stream, 1.0, self._odds), self.bundle.stream
        speech = speech_share(samples, settings, self.sample_rate) if gate else 1.0
        if speech < settings.speech:
            return [decider.decide(None, 0.0, end, speech)]
        missing = int(SHORTEST * self.sample_rate) - samples.size
        samples = np.pad(samples, (0, missing)) if missing > 0 else samples
        taken = self._front.clip(samples) if self._front else samples
        probs = heard((yield taken), len(self.labels), taken, speaker)
        return [decider.decide(probs, 0.0, end, speech)]

    def _run(self, batch: Floats) -> Floats:
        """Probabilities (batch, C), and an embedding behind them if there is one, of what the graph takes."""
        probs, *embedding = self._engine.answers(batch)
        fits = probs.shape == (len(batch), len(self.labels)) and all(
            part.ndim == 2 and len(part) == len(batch) and np.isfinite(part).all() for part in embedding
        )
        # Not a number is in no range either.
        if not fits or not (abs(probs.sum(axis=1) - 1) < SUM_TOLERANCE).all() or not (probs >= 0).all():
            raise BundleError(
                f"{self._card}: the model's answer is not probabilities; export the bundle again"
            )
        return np.hstack([probs, *embedding]) if embedding else probs
