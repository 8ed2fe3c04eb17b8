"""What a student is taught of its dimensions, epoch by epoch: the draws of LALMs and of the classifier.

As with the emotions, the classifier follows the student: later its draws are those of the student.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip
from mifuse.fusion.dimensions import FusedDimensions, fuse_dimensions
from mifuse.models.classifier import classifier_draws
from mifuse.models.features import Features
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student, same_shapes
from mifuse.models.training import Trainer, mc_dropout_all
from mifuse_runtime.dimensions import Ranges

Array = NDArray[np.float64]


class Rating:
    """The dimensions of N clips, as they are taught.

    Args:
        ranges: of the student's dimensions.
        draws: of each LALM, (K, N, V) from 0 to 1, NaN where it says nothing.
        classifier: another teacher, if it says any of them; it is not changed.
        clips, cache: the clips, for a classifier of others.
        count: draws of the classifier.
        momentum: of the student's moving average, per step: how fast a classifier of other shape follows.
    """

    def __init__(
        self,
        ranges: Ranges,
        draws: Sequence[Array],
        classifier: Student | HubClassifier | None,
        *,
        clips: Sequence[Clip],
        cache: AudioCache,
        count: int,
        momentum: float,
        seed: int = 0,
    ) -> None:
        self.ranges, self._count, self._momentum, self._seed = ranges, count, momentum, seed
        self._said = {"LALM" if len(draws) == 1 else f"LALM {i + 1}": one for i, one in enumerate(draws)}
        says = classifier is not None and set(classifier.dimensions) & set(ranges)
        self._classifier = classifier if says else None
        self._clips, self._cache = clips, cache
        self._draws: Array | None = None  # what `_own` has found

    def taught(self, features: Features) -> FusedDimensions:
        """What is taught at first.

        Raises:
            DrawsError: no teacher says anything of a dimension.
        """
        return self._fused(self._own(features))

    def again(self, trainer: Trainer) -> FusedDimensions:
        """What is taught from here on: the classifier's part has followed the student."""
        own, student = self._own(trainer.features), trainer.average
        if self._classifier is None or own is None:
            return self._fused(None)
        seed = self._seed + trainer.epoch
        followed = np.where(
            np.isnan(own), np.nan, _draws(student, trainer.features, self.ranges, self._count, seed)
        )
        kept = 0.0 if same_shapes(self._classifier, student) else self._momentum**trainer.step
        return self._fused(kept * own + (1 - kept) * followed)

    def _own(self, features: Features) -> Array | None:
        """Draws of the classifier as it came, (M, N, V); None: it says none of the dimensions."""
        model = self._classifier
        if self._draws is None and isinstance(model, Student):
            self._draws = _draws(model, features, self.ranges, self._count, self._seed)
        elif self._draws is None and model is not None:
            found = classifier_draws(model, self._clips, self._cache, self._count, self._seed)
            self._draws = _columns(found, (*model.labels, *model.dimensions), self.ranges)
        return self._draws

    def _fused(self, own: Array | None) -> FusedDimensions:
        return fuse_dimensions(self._said | ({} if own is None else {"classifier": own}), self.ranges)


def _draws(model: Student, features: Features, ranges: Ranges, count: int, seed: int) -> Array:
    """Draws of a model's dimensions, (count, N, V) in the order of the ranges; NaN of those it has not."""
    answers = mc_dropout_all(model, features, count, seed)
    return _columns(answers, (*model.labels, *model.dimensions), ranges)


def _columns(answers: Array, names: Sequence[str], ranges: Ranges) -> Array:
    """Those of answers (…, names) that the ranges name, in their order; NaN of those that are not there."""
    silent = np.full(answers.shape[:2], np.nan)
    found = [answers[..., names.index(name)] if name in names else silent for name in ranges]
    return np.stack(found, axis=-1)
