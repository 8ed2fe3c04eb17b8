"""MI-Fuse: a student for the target, from draws of a LALM and of a classifier, without labels.

The loop: fuse the draws of both teachers, fit the student to the fused labels, let the classifier teacher
follow the student, fuse again. Source: Huang, Lin, Lee, "MI-Fuse", arXiv 2509.20706 (2025).
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.config import require
from mifuse.errors import MifuseError, TrainingError
from mifuse.fusion.refinement import RefineConfig, refine
from mifuse.fusion.weighting import Fused, fuse
from mifuse.models.classifier import classifier_draws, load_model
from mifuse.models.features import Features
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer, mc_dropout_draws, predict
from mifuse.runs.folder import close_run, open_run
from mifuse.runs.predictions import Predictions, key
from mifuse.runs.processes import on_main_process
from mifuse.teachers.draws import load_draws
from mifuse.voices.choosing import doubted
from mifuse.voices.clustering import strangers, within_voices
from mifuse.voices.statistics import voices

_LOGGER = logging.getLogger(__name__)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class AdaptConfig:
    """How a student is adapted. `RECIPES` holds the two that have a name."""

    weighting: str = "reliability"  # of the two teachers, see mifuse.fusion
    temperature: float = 1.0  # τ of the weights
    classifier_draws: int = 8  # M; passes of the classifier with dropout
    refresh: int = 4  # epochs between two fusions; 0 fuses once
    warm_start: bool = True  # start from the classifier's weights when the shapes allow
    size: str = "s"  # of a student that starts from scratch
    dropout: float = 0.2  # 0 is off
    average: bool = True  # the student is the moving average of the weights, not the last step
    keep: float = 0.0  # weight of an earlier student's answers beside the labels; 0 is off
    refine: RefineConfig = field(default_factory=RefineConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        require(self, classifier_draws=(1, math.inf), refresh=(0, math.inf), keep=(0, math.inf))


KEEP = 1.0  # `keep` of a student that is adapted once more; see docs/LOG.md for what other weights do
RECIPES = {
    "default": AdaptConfig(),
    # The published formula and nothing else.
    "paper": AdaptConfig(
        weighting="mi",
        refresh=1,
        average=False,
        refine=RefineConfig(rounds=0, prior=0.0),
        fit=FitConfig(balance=0.0, diversity=0.5, momentum=0.999),
    ),
}


@dataclass(frozen=True)
class Adapted:
    """An adapted student and what it was taught."""

    student: Student
    history: list[dict[str, float]]
    fused: Fused  # of both teachers as they came, before refinement
    targets: Array  # (N, C) what the student was fitted to at the end
    lalm: Array  # (N, C) mean draw
    classifier: Array  # (N, C) mean draw of the classifier as it came
    probs: Array  # (N, C) of the student


def adapt(
    clips: Sequence[Clip],
    lalm_draws: Array,
    classifier: Student | HubClassifier,
    cache: AudioCache,
    *,
    config: AdaptConfig | None = None,
    seed: int = 0,
    known: NDArray[np.int64] | None = None,
    state: Path | None = None,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Adapted:
    """Adapt a student to unlabelled clips.

    Args:
        clips: N target clips; their labels are not read.
        lalm_draws: (K, N, C), in the order of the classifier's labels.
        classifier: the source model; it is not changed.
        known: class of each clip that the user has labelled, -1 of all others, (N,).
        state: folder of the run's state: written after each epoch, continued from when it holds one.
        progress: called with the record of each epoch.

    Raises:
        TrainingError: the loss is not finite, the student collapsed, or `state` is of another run.
    """
    config = config or RECIPES["default"]
    if lalm_draws.shape[1:] != (len(clips), len(classifier.labels)):
        raise TrainingError(
            f"draws of shape {lalm_draws.shape} do not fit "
            f"{len(clips)} clips and {len(classifier.labels)} labels"
        )
    # Statistics first: they come with the features, piece by piece, while a piece's audio is in the cache,
    # which does not hold a million clips.
    measured = voices(clips, cache) if config.refine.rounds > 0 else None
    features = Features.of(clips, cache)
    earlier = classifier if isinstance(classifier, Student) and config.keep > 0 else None
    if config.keep > 0 and earlier is None:
        raise TrainingError(f"keep = {config.keep:g} needs an earlier student: give one, or set keep=0")
    fit = Trainer(
        first_student(classifier, config, seed), features, config.fit, seed, earlier=earlier, keep=config.keep
    )
    follows = isinstance(classifier, Student) and _same_shapes(classifier, fit.student)
    targets = np.empty(0)
    settings = asdict(config) | {
        "target": _digest([f"{cache.hash(clip)} {clip.speaker}".encode() for clip in clips]),
        "draws": _digest([np.ascontiguousarray(lalm_draws).tobytes()]),
        "labelled": "" if known is None else _digest([known.tobytes()]),
        "source": _digest([w.cpu().numpy().tobytes() for w in classifier.state_dict().values()]),
    }
    if state is not None and (saved := fit.load(state, settings)):
        targets = saved["targets"]

    @functools.cache
    def teaching() -> _Teaching:
        draws = classifier_draws(classifier, clips, cache, config.classifier_draws, seed)
        values = np.empty((len(clips), 0)) if measured is None else measured.in_memory()
        speakers = [clip.speaker for clip in clips] if config.refine.speakers else ["all"] * len(clips)
        return _Teaching(lalm_draws, draws, follows, values, speakers, config, seed, known)

    while fit.epoch < fit.epochs:
        if fit.epoch == 0 or (config.refresh > 0 and fit.epoch % config.refresh == 0):
            # Once for all processes: their batch norm statistics, and so their draws, differ.
            targets = on_main_process(lambda: teaching().labels(fit))
        progress(fit.run_epoch(targets))
        if state is not None:
            fit.save(state, {"targets": targets}, settings)
    student = (fit.average if config.average else fit.student).eval()
    fused, classifier_mean, probs = on_main_process(
        lambda: (
            teaching().fused(teaching().draws),
            teaching().draws.mean(axis=0),
            predict(student, features),
        )
    )
    return Adapted(
        student=student.cpu(),
        history=fit.history,
        fused=fused,
        targets=targets,
        lalm=lalm_draws.mean(axis=0),
        classifier=classifier_mean,
        probs=probs,
    )


@dataclass
class _Teaching:
    """What the student is taught; in the main process alone, since all clips are in memory here."""

    lalm: Array  # (K, N, C)
    draws: Array  # (M, N, C) of the classifier as it came
    follows: bool  # the student's weights fit into the classifier
    values: Array  # (N, D) statistics of each clip
    speakers: Sequence[str | None]
    config: AdaptConfig
    seed: int
    known: NDArray[np.int64] | None

    def fused(self, draws: Array) -> Fused:
        """The LALM's draws fused with these (M, N, C)."""
        config = self.config
        return fuse(self.lalm, draws, config.weighting, config.temperature, self._reference)

    def labels(self, fit: Trainer) -> Array:
        """Refined labels (N, C) of this epoch's fusion."""
        config, draws = self.config, self.draws
        if fit.epoch > 0:
            # A student of other shape cannot hand its weights to the classifier: there, draws follow instead.
            seed = self.seed + fit.epoch
            followed = mc_dropout_draws(fit.average, fit.features, config.classifier_draws, seed)
            kept = 0.0 if self.follows else config.fit.momentum**fit.step
            draws = kept * draws + (1 - kept) * followed
        return self._refined(self.fused(draws).probs)

    @functools.cached_property
    def _reference(self) -> Array:
        return self._refined(self.lalm.mean(axis=0))

    @functools.cached_property
    def _statistics(self) -> Array:
        """Each clip within its voice, (N, D); better labels tell unnamed voices apart better."""
        if self.config.refine.rounds == 0:
            return self.values
        labels = self.lalm.mean(axis=0)
        statistics = within_voices(self.values, self.speakers, labels, self.seed)
        if not len(strangers(self.speakers)):
            return statistics
        labels = refine(labels, statistics, self.config.refine, self.seed, self.known)
        return within_voices(self.values, self.speakers, labels, self.seed)

    def _refined(self, labels: Array) -> Array:
        return refine(labels, self._statistics, self.config.refine, self.seed, self.known)


def first_student(classifier: Student | HubClassifier, config: AdaptConfig, seed: int) -> Student:
    """The student before its first step: the classifier's weights, or fresh ones."""
    torch.manual_seed(seed)
    student = Student(labels=classifier.labels, size=config.size, dropout=config.dropout)
    if config.warm_start and _same_shapes(classifier, student):
        student.load_state_dict(classifier.state_dict())
    elif config.warm_start:
        _LOGGER.info("the classifier has other shapes than a student of size %s: from scratch", config.size)
    return student


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _same_shapes(a: nn.Module, b: nn.Module) -> bool:
    """Whether the weights of one fit into the other."""
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(mine[k].shape == theirs[k].shape for k in mine)


def adapt_manifest(
    source: str | Path,
    target: Path,
    draws: Path,
    out: Path,
    *,
    teacher: str | None = None,
    labelled: Path | None = None,
    config: AdaptConfig | None = None,
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    cache: AudioCache | None = None,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> dict[str, Any]:
    """`mifuse adapt`: from files to a run folder `out`. Returns what run.json holds.

    Args:
        source: checkpoint folder or hf:NAME of the classifier; with `config.keep`, of the earlier student.
        target: manifest; its `adapt` rows are used where it has a split.
        draws: draws store or JSONL; `teacher` chooses where it holds several.
        labelled: manifest of the few target clips whose labels are known and may be used.
        resume: continue an interrupted run.

    Raises:
        MifuseError: any input that cannot be used; nothing is written then.
    """
    started = time.perf_counter()
    config = config or RECIPES["default"]
    cache = cache or AudioCache()
    classifier = load_model(source)
    if config.keep > 0 and isinstance(classifier, Student):
        config = replace(config, size=classifier.size)
    labels = classifier.labels
    clips = read_manifest(target, labels=None).select("adapt").clips
    lalm_draws = load_draws(draws, clips, labels, cache, teacher)
    known = None if labelled is None else _known(labelled, clips, labels, cache)
    with open_run(out, resume=resume, force=force) as partial:
        adapted = adapt(
            clips,
            lalm_draws,
            classifier,
            cache,
            config=config,
            seed=seed,
            known=known,
            state=partial,
            progress=progress,
        )
        predictions = _predictions(adapted, clips)
        record = {
            "kind": "adapt",
            "labels": labels,
            "config": asdict(config),
            "seed": seed,
            "source": str(source),
            "target": str(target.resolve()),
            "draws": str(draws.resolve()),
            "clips": len(clips),
            "unnamed": len(strangers([clip.speaker for clip in clips])),
            "labelled": 0 if known is None else int((known >= 0).sum()),
            "doubted": [labels[c] for c in doubted(adapted.targets, adapted.lalm)],
            "fusion": {f"{who.lower()}_prior": p.mean(0).tolist() for who, p in predictions.probs.items()},
            "history": adapted.history,
            "seconds": time.perf_counter() - started,
        }
        close_run(partial, out, adapted.student, record, predictions)
    return record


def _known(
    labelled: Path, clips: Sequence[Clip], labels: Sequence[str], cache: AudioCache
) -> NDArray[np.int64]:
    """Class of each clip that the manifest `labelled` has, by content, and -1 of all others."""
    classes: dict[str, int] = {}
    for clip in read_manifest(labelled, labels=labels).clips:
        if clip.label is None:
            raise MifuseError(f"{labelled}: {clip.name} has no label: give one, or leave the row out")
        index = labels.index(clip.label)
        if classes.setdefault(cache.hash(clip), index) != index:
            raise MifuseError(
                f"{labelled}: {clip.name} has another label than the same recording above: "
                "leave out one of the two"
            )
    hashes = [cache.hash(clip) for clip in clips]
    strangers = len(classes.keys() - set(hashes))
    if strangers:
        raise MifuseError(
            f"{labelled}: {strangers} of its {len(classes)} clips are not among those to adapt to: "
            "add them to the target manifest, or leave them out"
        )
    return np.array([classes.get(digest, -1) for digest in hashes])


def _predictions(adapted: Adapted, clips: Sequence[Clip]) -> Predictions:
    probs = {
        "LALM": adapted.lalm,
        "classifier": adapted.classifier,
        "fused": adapted.targets,
        "student": adapted.probs,
    }
    measures = {
        "lalm_weight": adapted.fused.lalm_weight,
        "lalm_mi": adapted.fused.lalm_mi,
        "classifier_mi": adapted.fused.classifier_mi,
    }
    return Predictions(adapted.student.labels, tuple(map(key, clips)), probs, measures)
