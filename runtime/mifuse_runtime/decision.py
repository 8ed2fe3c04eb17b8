"""Predictions, and the state that a stream of them leaves: smoothed, without flicker, able to be unsure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.settings import NO_SPEECH, NOT_SURE, SPOKEN, Settings

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """An emotion and when. `scores` is label -> probability and sums to 1, `start` and `end` are seconds.

    `label` is what this audio alone says; in a stream, audio without speech has the label "no speech" and
    equal scores. `state` is what an app shows: an emotion, "not sure" or "no speech"; in a stream it comes
    from the smoothed scores and changes only on a clear lead. `confidence` is the largest of the scores,
    smoothed in a stream; `speech` is the share of the audio that is speech. `dimensions` are such as arousal,
    each in its own range; there are none without speech, and none of a model that says emotions alone.
    A model that says dimensions alone has no scores, and of speech the label and state "speech".
    `demo` is true of a bundle that was trained on synthetic speech: it says nothing about real voices.
    """

    label: str
    scores: Mapping[str, float]
    start: float
    end: float
    state: str = NOT_SURE
    confidence: float = 0.0
    speech: float = 1.0
    dimensions: Mapping[str, float] = field(default_factory=dict)
    demo: bool = False


@dataclass(frozen=True)
class View:
    """What a model's C probabilities are shown as: G labels, each the sum of some of them."""

    labels: tuple[str, ...]
    matrix: Shares  # zeros and ones, (C, G)


class Decider:
    """Turns the answers to one window after the other into predictions."""

    def __init__(
        self,
        labels: Sequence[str],
        settings: Settings,
        hop: float,
        odds: Shares | None = None,
        view: View | None = None,
        *,
        dimensions: Mapping[str, tuple[float, float]] | None = None,
        demo: bool = False,
    ) -> None:
        self._settings, self._odds, self._view, self._demo = settings, odds, view, demo
        self._labels = view.labels if view else labels
        self._classes, self._ranges = len(labels), dimensions or {}
        self._keep = math.exp(-hop / settings.smoothing) if settings.smoothing else 0.0
        self.reset()

    def reset(self) -> None:
        """Forget the windows so far."""
        self._smooth: list[float] | None = None
        self._state: int | None = None  # index of an emotion

    def decide(self, answer: Shares | None, start: float, end: float, speech: float = 1.0) -> Prediction:
        """The prediction from the answer (C + V,) to the audio from `start` to `end`; None: no speech."""
        if answer is None:
            self.reset()
            equal = {label: 1 / len(self._labels) for label in self._labels}
            return Prediction(NO_SPEECH, equal, start, end, NO_SPEECH, 0.0, speech, {}, self._demo)
        probs = answer[: self._classes]
        numbers = zip(answer[self._classes :].tolist(), self._ranges.items(), strict=True)
        dimensions = {name: low + share * (high - low) for share, (name, (low, high)) in numbers}
        if not self._labels:
            return Prediction(SPOKEN, {}, start, end, SPOKEN, 0.0, speech, dimensions, self._demo)
        probs = probs if self._odds is None else probs * self._odds
        # Lists: on a handful of numbers NumPy takes three times as long.
        values: list[float] = (probs @ self._view.matrix if self._view else probs).tolist()
        total = sum(values)
        # Of a subset the model may think nothing at all.
        values = [value / total for value in values] if total > 0 else [1 / len(values)] * len(values)
        last = values if self._smooth is None else self._smooth
        keep = self._keep
        self._smooth = [keep * old + (1 - keep) * new for old, new in zip(last, values, strict=True)]
        self._state = self._next(self._smooth)
        scores = dict(zip(self._labels, values, strict=True))
        state = NOT_SURE if self._state is None else self._labels[self._state]
        label = self._labels[values.index(max(values))]
        found = (label, scores, start, end, state, max(self._smooth), speech)
        return Prediction(*found, dimensions, self._demo)

    def _next(self, smooth: list[float]) -> int | None:
        top, now = smooth.index(max(smooth)), self._state
        settings = self._settings
        if now is None or smooth[top] - smooth[now] > settings.margin:
            return top if smooth[top] >= settings.abstain else None
        # The way out is lower than the way in: a score at the threshold must not flicker.
        return now if smooth[now] >= settings.abstain - settings.margin else None
