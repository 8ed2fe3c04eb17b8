"""The recogniser: a loaded bundle that turns samples into emotions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines
from mifuse_runtime.audio import Floats, checked, mono
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.errors import AudioError, BundleError
from mifuse_runtime.resample import resample
from mifuse_runtime.stream import Prediction, Stream

SHORTEST = 0.1  # seconds: shorter audio is followed by silence, so that any graph has a frame to look at
BATCH_SECONDS = 100.0  # audio in one run of the graph: bounds the memory of predict_batch


class Recognizer:
    """Emotions of speech, from a bundle. Safe to share between threads.

        recognizer = Recognizer.load("bundle/")
        recognizer.predict(samples, sample_rate=44_100).label

    `samples` are 1-D or (n, channels), float in [-1, 1] or int16; channels are averaged, rates resampled.
    """

    def __init__(self, bundle: Bundle, engine: engines.Engine, card: str) -> None:
        self.bundle = bundle
        self._engine = engine
        self._card = card

    @classmethod
    def load(
        cls,
        path: str | Path,
        engine: str = "onnxruntime",
        threads: int = 1,
        precision: str | None = None,
    ) -> Recognizer:
        """Load a bundle after checking the SHA-256 of its files.

        Args:
            path: the bundle's folder.
            engine: `onnxruntime` or `openvino`.
            threads: threads that the engine may use for one call.
            precision: `fp32` or `int8`; None is the bundle's default.

        Raises:
            BundleError: the bundle is missing, changed, too new, or lacks that engine and precision.
            MifuseError: the engine is unknown or not installed.
        """
        bundle = bundles.load(path)
        started = engines.start(Path(path), bundle, engine, precision, threads)
        what = f"{precision or bundle.default} on {engine}, threads={threads}"
        return cls(bundle, started, f"{path}: {', '.join(bundle.labels)}; {what}")

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

    def predict(self, samples: ArrayLike, sample_rate: float | None = None) -> Prediction:
        """The emotion of one clip, looked at as a whole.

        Raises:
            AudioError: no samples, NaN or infinite ones, a type, shape or rate that cannot be used.
        """
        return self.predict_batch([samples], sample_rate)[0]

    def predict_batch(self, clips: Sequence[ArrayLike], sample_rate: float | None = None) -> list[Prediction]:
        """The emotion of each clip, as `predict` gives it; clips of equal length share runs of the graph.

        Raises:
            AudioError: as for `predict`; names the clip when there are several.
        """
        rate = self.sample_rate if sample_rate is None else sample_rate
        ready: list[Floats] = []
        try:
            for clip in clips:
                ready.append(resample(checked(mono(clip)), rate, self.sample_rate))  # noqa: PERF401
        except AudioError as error:
            raise error if len(clips) == 1 else AudioError(f"clip {len(ready)}: {error}") from error
        same = defaultdict(list)
        for number, clip_samples in enumerate(ready):
            same[clip_samples.size].append(number)
        found: dict[int, Prediction] = {}
        for length, numbers in same.items():
            rows = max(1, int(BATCH_SECONDS * self.sample_rate) // length)
            for start in range(0, len(numbers), rows):
                part = numbers[start : start + rows]
                for number, probs in zip(part, self._run(np.stack([ready[n] for n in part])), strict=True):
                    found[number] = self._prediction(probs, 0, length)
        return [found[number] for number in range(len(ready))]

    def stream(
        self, sample_rate: float | None = None, window: float | None = None, hop: float = 0.5
    ) -> Stream:
        """A stream of predictions over audio that arrives in chunks at `sample_rate` Hz (None: the model's).

        Args:
            window: seconds that each prediction looks at; None is the bundle's, 3 s.
            hop: seconds between predictions.

        Raises:
            AudioError: a rate, window or hop that cannot be used.
        """
        rate = self.sample_rate if sample_rate is None else sample_rate
        window = self.bundle.window if window is None else window
        return Stream(self._recognise, self.sample_rate, rate, window, hop)

    def _recognise(self, samples: Floats, start: int) -> Prediction:
        return self._prediction(self._run(samples[None])[0], start, start + samples.size)

    def _run(self, samples: Floats) -> Floats:
        """Probabilities (batch, C) of samples (batch, n) at the model's rate."""
        missing = int(SHORTEST * self.sample_rate) - samples.shape[1]
        if missing > 0:
            samples = np.pad(samples, ((0, 0), (0, missing)))
        probs = self._engine(samples)
        if probs.shape != (len(samples), len(self.labels)) or not np.isfinite(probs).all():
            raise BundleError(
                f"{self._card}: the model's answer is not probabilities; export the bundle again"
            )
        return probs

    def _prediction(self, probs: Floats, start: int, end: int) -> Prediction:
        shares = probs.astype(np.float64)
        shares /= shares.sum()
        scores = dict(zip(self.labels, shares.tolist(), strict=True))
        label = self.labels[int(shares.argmax())]
        return Prediction(label, scores, start / self.sample_rate, end / self.sample_rate)
