"""What a student is taught: both teachers' draws fused, then refined by the archive itself."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip
from mifuse.clips.shards import Joined
from mifuse.fusion.recipes import AdaptConfig
from mifuse.fusion.refinement import refine
from mifuse.fusion.weighting import Fused, fuse
from mifuse.models.classifier import classifier_draws
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student
from mifuse.models.training import Trainer, mc_dropout_draws, same_shapes
from mifuse.voices.clustering import strangers, within_voices

Array = NDArray[np.float64]


class Teaching:
    """The labels of N clips, epoch by epoch.

    Nothing is computed before the first labels: under `accelerate launch` only the main process asks for
    them, and only there are the statistics of all clips in memory.

    Args:
        clips: who speaks is read, labels are not.
        lalm: draws (K, N, C).
        classifier: the second teacher; it is not changed.
        statistics: (N, D) of each clip's voice; None where labels are not refined.
        known: class of each clip that the user has labelled, -1 of all others, (N,).
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        lalm: Array,
        classifier: Student | HubClassifier,
        statistics: Joined | None,
        *,
        cache: AudioCache,
        config: AdaptConfig,
        seed: int = 0,
        known: NDArray[np.int64] | None = None,
    ) -> None:
        self.clips, self.lalm, self.classifier, self.config = clips, lalm, classifier, config
        self.seed, self.known, self._cache, self._measured = seed, known, cache, statistics

    @functools.cached_property
    def draws(self) -> Array:
        """Draws (M, N, C) of the classifier as it came."""
        count = self.config.classifier_draws
        return classifier_draws(self.classifier, self.clips, self._cache, count, self.seed)

    def fused(self, draws: Array | None = None) -> Fused:
        """The LALM's draws fused with these (M, N, C), or with the classifier's as it came."""
        config, draws = self.config, self.draws if draws is None else draws
        return fuse(self.lalm, draws, config.weighting, config.temperature, self._reference)

    def is_due(self, epoch: int) -> bool:
        """Whether new labels are wanted before this epoch."""
        refresh = self.config.refresh
        return epoch == 0 or (refresh > 0 and epoch % refresh == 0)

    def labels(self, trainer: Trainer) -> Array:
        """Refined labels (N, C) for the trainer's next epochs; the classifier follows its student."""
        draws = self.draws
        if trainer.epoch > 0:
            config, student = self.config, trainer.average
            followed = mc_dropout_draws(
                student, trainer.features, config.classifier_draws, self.seed + trainer.epoch
            )
            # A student of other shape cannot hand its weights to the classifier: there, draws follow instead.
            follows = isinstance(self.classifier, Student) and same_shapes(self.classifier, student)
            kept = 0.0 if follows else config.fit.momentum**trainer.step
            draws = kept * draws + (1 - kept) * followed
        return self._refined(self.fused(draws).probs)

    @functools.cached_property
    def _reference(self) -> Array:
        return self._refined(self.lalm.mean(axis=0))

    @functools.cached_property
    def _statistics(self) -> Array:
        """Each clip within its voice, (N, D); better labels tell unnamed voices apart better."""
        if self._measured is None:
            return np.empty((len(self.clips), 0))
        values = self._measured.in_memory()
        speakers = [clip.speaker if self.config.refine.speakers else "all" for clip in self.clips]
        labels = self.lalm.mean(axis=0)
        statistics = within_voices(values, speakers, labels, self.seed)
        if not len(strangers(speakers)):
            return statistics
        labels = refine(labels, statistics, self.config.refine, self.seed, self.known)
        return within_voices(values, speakers, labels, self.seed)

    def _refined(self, labels: Array) -> Array:
        return refine(labels, self._statistics, self.config.refine, self.seed, self.known)
