"""What a student is taught: all teachers' draws fused, then refined by the archive itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip
from mifuse.clips.shards import Joined
from mifuse.fusion.evidence import Evidence, weigh
from mifuse.fusion.new_voices import voices_of
from mifuse.fusion.recipes import AdaptConfig
from mifuse.fusion.refinement import Refined, refine, toward
from mifuse.fusion.reliability import floored
from mifuse.fusion.weighting import Fused, fuse
from mifuse.models.classifier import classifier_draws
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student, same_shapes
from mifuse.models.training import Trainer, mc_dropout_draws
from mifuse.voices.clustering import unnamed_clips, voices_removed
from mifuse.voices.effects import mixing
from mifuse.voices.embedding import voice_embeddings
from mifuse.voices.grouping import named, voices
from mifuse.voices.states import StatisticsAndStates

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Reliability of a LALM whose labels gain less from what the student makes of them. Fused every 4 or every 8
# epochs, archive / new speakers: weak LALMs 74.2 / 68.3 or 70.3 / 64.7 (mean of three transfers), a good one
# 76.3 / 65.6 or 77.2 / 68.8 (docs/log/2026-11-30-trust.md).
GOOD = 0.5


class Teaching:
    """The labels of N clips, epoch by epoch.

    Nothing is computed before the first labels: under `accelerate launch` only the main process asks for
    them, and only there are the statistics of all clips in memory.

    Args:
        clips: who speaks is read, labels are not. Clips of nobody named are grouped by their voices.
        lalms: draws of each LALM, (K, N, C).
        classifier: another teacher; it is not changed. None: there is none.
        statistics: (N, D) of each clip's voice, an encoder's states beside them or not; None where labels are
            not refined.
        known: class of each clip that the user has labelled, -1 of all others, (N,).
        shares: of the classes, (C,), where they are known.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        lalms: Sequence[Array],
        classifier: Student | HubClassifier | None,
        statistics: Joined | StatisticsAndStates | None,
        *,
        cache: AudioCache,
        config: AdaptConfig,
        seed: int = 0,
        known: NDArray[np.int64] | None = None,
        shares: Array | None = None,
    ) -> None:
        self._clips, self.lalms, self.classifier, self.config = clips, lalms, classifier, config
        self.seed, self.known, self.shares = seed, known, shares
        self._cache, self._measured = cache, statistics

    @functools.cached_property
    def lalm(self) -> Array:
        """Draws (K, N, C) of all LALMs, as many of each."""
        count = min(map(len, self.lalms))
        return np.concatenate([draws[:count] for draws in self.lalms])

    @property
    def _by_speaker(self) -> bool:
        """Whether labels are refined, and without what speakers add."""
        return self.config.refine.rounds > 0 and self.config.refine.speakers

    @functools.cached_property
    def speakers(self) -> list[str | None]:
        """Who speaks in each clip; where nobody says so, "voice 1" and so on, by how the clips sound."""
        given = [clip.speaker or None for clip in self._clips]
        rows = unnamed_clips(given)
        if not len(rows) or not self._by_speaker:
            return given
        views = self.lalm.mean(axis=0)[rows], self.alone.mean(axis=0)[rows]
        found = voice_embeddings([self._clips[row] for row in rows], self._cache).in_memory()
        groups = voices(found, views, self.seed)
        return named(given, rows, groups) if groups.any() else given

    @functools.cached_property
    def clips(self) -> list[Clip]:
        """The clips with their `speakers`."""
        return [replace(clip, speaker=who) for clip, who in zip(self._clips, self.speakers, strict=True)]

    @functools.cached_property
    def mixing(self) -> float:
        """How far speakers differ in their emotions, 0 to 1; see `mifuse.voices.effects`."""
        if self.classifier is None or not self._by_speaker:
            return 0.0
        names = np.array([speaker or "" for speaker in self.speakers])
        rows = np.flatnonzero(names != "")
        if not len(rows):
            return 0.0
        groups = np.unique(names[rows], return_inverse=True)[1]
        return mixing((self.lalm.mean(axis=0)[rows], self.alone.mean(axis=0)[rows]), groups)

    @functools.cached_property
    def draws(self) -> Array:
        """Draws (M, N, C) of the classifier as it came; without one, the LALM's mean."""
        if self.classifier is None:
            return np.asarray(self.lalm.mean(axis=0, keepdims=True))
        if self.mixing == 1 or not (isinstance(self.classifier, Student) or self.classifier.knows_speakers):
            return self.alone
        within = classifier_draws(self.classifier, self.clips, self._cache, self._count, self.seed)
        return within if self.mixing == 0 else (1 - self.mixing) * within + self.mixing * self.alone

    @property
    def _count(self) -> int:
        return self.config.classifier_draws

    @functools.cached_property
    def alone(self) -> Array:
        """Draws (M, N, C) of the classifier, each clip without its speaker's others."""
        if self.classifier is None:
            return self.draws
        clips = [clip.without_speaker() for clip in self._clips]
        return classifier_draws(self.classifier, clips, self._cache, self._count, self.seed)

    @functools.cached_property
    def evidence(self) -> Evidence:
        """The teachers weighed by what the archive says of them."""
        return self._weigh(self.draws)

    def voices(self) -> Indices:
        """Speaker of each clip as a number, (N,); similar voices where nobody is named."""
        values = np.empty((0, 0)) if self._measured is None else self._measured.in_memory()
        return voices_of(self.speakers, values, self.lalm.mean(axis=0), self.seed)

    def opinion(self, answers: Array) -> Array:
        """Answers (N, C) with the class prior of the labels."""
        return toward(floored(answers), self.config.refine.prior, self.shares)

    def fused(self) -> Fused:
        """The draws of LALM and classifier fused, and the share of each."""
        config = self.config
        weighting = "reliability" if config.weighting == "evidence" else config.weighting
        fused = fuse(self.lalm, self.draws, weighting, config.temperature, self._reference(weighting))
        return fused if config.weighting != "evidence" else fused.with_labels(self.evidence.labels)

    @property
    def refresh(self) -> int:
        """Epochs between two fusions; 0: one fusion."""
        config = self.config
        if config.weighting != "evidence" or config.refine.rounds == 0 or self.classifier is None:
            return config.refresh
        good = float(self.evidence.reliabilities[: len(self.lalms)].max()) >= GOOD
        return config.refresh * (2 if good else 1)

    def labels(self, trainer: Trainer) -> Array:
        """Refined labels (N, C) for the trainer's next epochs; the classifier follows its student.

        Without draws about emotions there are none, (N, 0).
        """
        if not self.lalms:
            return np.empty((len(self._clips), 0))
        draws = self.draws
        if trainer.epoch > 0:
            config, student = self.config, trainer.average
            followed = mc_dropout_draws(student, trainer.features, self._count, self.seed + trainer.epoch)
            # A student of other shape cannot hand its weights to the classifier: there, draws follow instead.
            follows = isinstance(self.classifier, Student) and same_shapes(self.classifier, student)
            kept = 0.0 if follows else config.fit.momentum**trainer.step
            draws = kept * draws + (1 - kept) * followed
        return self.refined(draws).labels

    def refined(self, draws: Array) -> Refined:
        """Labels from these draws (M, N, C) of the classifier, and the probe's opinion."""
        config = self.config
        if config.weighting == "evidence":
            evidence = self.evidence if draws is self.draws else self._weigh(draws)
            return self._refine(evidence.labels, evidence.views)
        fused = fuse(
            self.lalm, draws, config.weighting, config.temperature, self._reference(config.weighting)
        )
        return self._refine(fused.probs)

    def _weigh(self, draws: Array) -> Evidence:
        lalms = [lalm.mean(axis=0) for lalm in self.lalms]
        classifier = None if self.classifier is None else draws.mean(axis=0)
        statistics = self._statistics if self.config.refine.rounds else np.empty((len(self._clips), 0))
        return weigh(
            lalms, classifier, statistics, self.config.refine, self.seed, known=self.known, shares=self.shares
        )

    def _reference(self, weighting: str) -> Array | None:
        return self._refined_lalm if weighting == "reliability" else None

    @functools.cached_property
    def _refined_lalm(self) -> Array:
        return self._refine(self.lalm.mean(axis=0)).labels

    @functools.cached_property
    def _statistics(self) -> Callable[[Array], Array]:
        """Labels -> statistics of each clip without what the voices add, (N, D)."""
        if self._measured is None:
            return lambda labels: np.empty((len(labels), 0))
        values = self._measured.in_memory()
        speakers = self.speakers if self.config.refine.speakers else ["all"] * len(self._clips)
        views = None if self.classifier is None else (self.lalm.mean(axis=0), self.alone.mean(axis=0))
        return voices_removed(values, speakers, views, self.seed)

    def _refine(self, labels: Array, views: Sequence[Array] = ()) -> Refined:
        return refine(
            labels, self._statistics, self.config.refine, self.seed, self.known,
            views=views, shares=self.shares,
        )  # fmt: skip
