"""MI-Fuse: a student for the target, from draws of a LALM and of a classifier, without labels.

The loop: fuse the draws of both teachers, fit the student to the fused labels, let the classifier teacher
follow the student, fuse again. Source: Huang, Lin, Lee, "MI-Fuse", arXiv 2509.20706 (2025).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip
from mifuse.clips.shards import Joined
from mifuse.errors import TrainingError
from mifuse.fusion.dimensions import FusedDimensions
from mifuse.fusion.new_voices import held_out, predict_held_out
from mifuse.fusion.prosody import fit_prosody
from mifuse.fusion.rating import Rating
from mifuse.fusion.recipes import RECIPES, AdaptConfig
from mifuse.fusion.shares import estimated_shares
from mifuse.fusion.teaching import Teaching
from mifuse.fusion.verdict import (
    STUDENT,
    Verdict,
    calibrated,
    corrected_by_agreement,
    expected,
    founded,
    judge,
)
from mifuse.fusion.weighting import Fused
from mifuse.models.dimensions import DimensionTargets
from mifuse.models.features import Features
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student, same_shapes
from mifuse.models.training import Trainer, predict, predict_all
from mifuse.models.training_state import TrainingState, digest
from mifuse.runs.processes import on_main_process
from mifuse.voices.states import StatisticsAndStates
from mifuse.voices.statistics import features_and_statistics
from mifuse_runtime.dimensions import Ranges

_LOGGER = logging.getLogger(__name__)
Array = NDArray[np.float64]
Progress = Callable[[dict[str, float]], object]  # called with the record of each epoch
MIXED = 0.5  # of `Teaching.mixing`; above it the student takes each clip by itself


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
    shares: Array | None = None  # of the classes, (C,), where they were known
    verdict: Verdict | None = None  # what to expect; None where the recipe has none
    dimensions: FusedDimensions | None = None  # what it was taught of them; None: it has none
    values: Array | None = None  # (N, V) of the student, from 0 to 1


def adapt(
    clips: Sequence[Clip],
    lalm_draws: Array | Sequence[Array],
    classifier: Student | HubClassifier | None,
    cache: AudioCache | None = None,
    *,
    labels: Sequence[str] | None = None,
    config: AdaptConfig | None = None,
    seed: int = 0,
    known: NDArray[np.int64] | None = None,
    check: NDArray[np.int64] | None = None,
    shares: Array | None = None,
    encoder: HubClassifier | None = None,
    dimensions: Ranges | None = None,
    dimension_draws: Sequence[Array] = (),
    student: Callable[[], Student] | None = None,
    state: Path | None = None,
    progress: Progress = lambda _: None,
) -> Adapted:
    """Adapt a student to unlabelled clips.

    Args:
        clips: N target clips; their labels are not read.
        lalm_draws: (K, N, C), in the order of the classifier's labels; of several LALMs, one array each.
        classifier: the source model; it is not changed. None: the LALMs alone teach.
        cache: of decoded audio and of what is computed of it; None: the one of this machine.
        labels: of the draws, where there is no classifier to ask; the default four. Empty: dimensions alone.
        known, check: classes (N,) that the user gives to learn from, or to measure by; -1 of other clips.
        shares: of the classes in the archive, (C,), where they are known.
        encoder: labels are held against its states of the clips, too, beside the statistics of the voice.
        dimensions, dimension_draws: ranges, and their numbers by each LALM, (K, N, V) from 0 to 1, or NaN.
        student: makes the student before its first step; None: as `config` says.
        state: folder of the run's state: written after each epoch, continued from when it holds one.
        progress: called with the record of each epoch.

    Raises:
        TrainingError: the loss is not finite, the student collapsed, or `state` is of another run.
    """
    config, cache = config or RECIPES["default"], cache or AudioCache()
    lalms = [lalm_draws] if isinstance(lalm_draws, np.ndarray) else list(lalm_draws)
    labels = _emotions(labels, classifier)
    if not labels:
        config = _alone(config, dimensions, known, check, shares)
    _check(clips, lalms, labels, classifier, config)
    if shares is None and check is not None:
        shares = estimated_shares(np.mean([draws.mean(axis=0) for draws in lalms], axis=0), check)[0]
    features, voices = _measured(clips, cache, config, encoder, progress)
    given: Any = {"cache": cache, "config": config, "seed": seed, "known": known, "shares": shares}
    teaching = Teaching(clips, lalms, classifier, voices, **given)
    features = features.spoken_by(on_main_process(lambda: teaching.speakers))
    first = student or partial(first_student, classifier, labels, config, seed, dimensions or {})
    rating = _rating(teaching, cache, dimensions or {}, dimension_draws)
    taught = on_main_process(lambda: None if rating is None else rating.taught(features))
    trainer = _trainer(teaching, first(), features, taught)
    saved = TrainingState(state, _settings(teaching, clips, cache, encoder, taught))
    adapted = _adapted(teaching, trainer, _fit(teaching, rating, trainer, saved, progress), taught)
    if config.verdict and config.refine.rounds > 0:
        verdict = _verdict(adapted, teaching, trainer.features, first(), check=check, progress=progress)
        adapted = replace(adapted, verdict=verdict)
    return adapted


def _emotions(labels: Sequence[str] | None, classifier: Student | HubClassifier | None) -> Sequence[str]:
    """Of the student: the classifier's, but where none are wanted."""
    if labels is None or (labels and classifier is not None):
        return LABELS if classifier is None else classifier.labels
    return labels


def _alone(config: AdaptConfig, dimensions: Ranges | None, *of_emotions: object) -> AdaptConfig:
    """The recipe where there are no emotions: nothing to refine or to judge.

    Raises:
        TrainingError: no dimensions either, or something is given that is about emotions.
    """
    if not dimensions or any(one is not None for one in of_emotions):
        what = "emotions are checked, labelled or shared out" if dimensions else "there are no dimensions"
        raise TrainingError(f"a student without emotions, and {what}: give it dimensions and nothing else")
    return replace(config, refine=replace(config.refine, rounds=0))


def _rating(teaching: Teaching, cache: AudioCache, ranges: Ranges, draws: Sequence[Array]) -> Rating | None:
    """What is taught of dimensions; None: there are none."""
    if not ranges:
        return None
    return Rating(
        *(ranges, draws, teaching.classifier),
        clips=teaching.clips,
        cache=cache,
        count=teaching.config.classifier_draws,
        momentum=teaching.config.fit.momentum,
        seed=teaching.seed,
    )


def _trainer(
    teaching: Teaching, student: Student, features: Features, taught: FusedDimensions | None
) -> Trainer:
    config, classifier = teaching.config, teaching.classifier
    return Trainer(
        student,
        # Where each speaker has a mood of his own, normalising within him would take it out.
        features if on_main_process(lambda: teaching.mixing) < MIXED else features.anonymous(),
        *(config.fit, teaching.seed),
        earlier=classifier if isinstance(classifier, Student) and config.keep > 0 else None,
        keep=config.keep,
        dimensions=None if taught is None else taught.targets,
    )


def _fit(
    teaching: Teaching, rating: Rating | None, trainer: Trainer, saved: TrainingState, progress: Progress
) -> Array:
    """The loop: labels by the teachers, an epoch of the student on them. Returns the last labels, (N, C)."""
    kept = saved.load(trainer)
    targets: Array = kept.pop("targets", np.empty(0))
    if kept:
        trainer.dimensions = DimensionTargets(**kept)
    refresh = on_main_process(lambda: teaching.refresh)
    while trainer.epoch < trainer.epochs:
        if trainer.epoch == 0 or (refresh > 0 and trainer.epoch % refresh == 0):
            # Once for all processes: their batch norm statistics, and so their draws, differ.
            targets = on_main_process(lambda: teaching.labels(trainer))
            if rating is not None and trainer.epoch > 0:
                trainer.dimensions = on_main_process(lambda: rating.again(trainer)).targets
        progress(trainer.run_epoch(targets))
        taught = trainer.dimensions
        numbers = {} if taught is None else {"values": taught.values, "weights": taught.weights}
        saved.save(trainer, {"targets": targets} | {k: v for k, v in numbers.items() if v is not None})
    return targets


def _measured(
    clips: Sequence[Clip],
    cache: AudioCache,
    config: AdaptConfig,
    encoder: HubClassifier | None,
    progress: Progress,
) -> tuple[Features, Joined | StatisticsAndStates | None]:
    """What the student sees of the clips, and what refinement does, if there is any."""
    if config.refine.rounds == 0:
        if encoder is not None:
            raise TrainingError("an encoder is of use to refinement: leave it out where refine.rounds = 0")
        return Features.of(clips, cache), None
    features, statistics = features_and_statistics(clips, cache)
    if encoder is None:
        return features, statistics
    count = itertools.count(1)
    states = encoder.embeddings(clips, cache, lambda: progress({"encoded": next(count)}))
    return features, StatisticsAndStates(statistics, states)


def _verdict(
    adapted: Adapted,
    teaching: Teaching,
    features: Features,
    second: Student,
    *,
    check: NDArray[np.int64] | None,
    progress: Progress,
) -> Verdict:
    """What to expect, on the archive and, by a second student that misses some speakers, on new voices."""
    config, seed = teaching.config, teaching.seed
    evidence = on_main_process(lambda: teaching.evidence)
    voices, labels = on_main_process(teaching.voices), calibrated(adapted.targets, evidence)
    rows = held_out(voices, seed)
    sources = {"LALM": adapted.lalm}
    if teaching.classifier is not None:
        sources |= {"classifier": adapted.classifier, "average": (adapted.lalm + adapted.classifier) / 2}
    archive = {
        who: expected(labels, probs, voices, check, seed)
        for who, probs in (sources | {STUDENT: adapted.probs}).items()
    }
    new_voices = {}
    if len(rows):
        student = predict_held_out(
            second, features, adapted.targets, rows, config=config.fit, seed=seed, progress=progress
        )
        if teaching.classifier is not None:
            alone = on_main_process(lambda: teaching.alone.mean(axis=0))
            sources |= {"classifier": alone, "average": (adapted.lalm + alone) / 2}
        # All on the same clips: what the labels get wrong there is wrong for all that are compared.
        part = None if check is None else check[rows]
        asked = {who: probs[rows] for who, probs in sources.items()} | {STUDENT: student}
        new_voices = {who: expected(labels[rows], p, voices[rows], part, seed) for who, p in asked.items()}
        if teaching.classifier is not None and not founded(part):
            opinions = [opinion[rows] for opinion in evidence.opinions]
            new_voices[STUDENT] = corrected_by_agreement(
                new_voices[STUDENT], teaching.opinion(student), opinions
            )
    names = adapted.student.labels if teaching.shares is None else ()
    called = np.bincount(adapted.lalm.argmax(axis=1), minlength=adapted.lalm.shape[1]) / len(adapted.lalm)
    return judge(
        *(archive, new_voices, 0 if check is None else int((check >= 0).sum())),
        clips=len(adapted.lalm),
        called=dict(zip(names, called.tolist(), strict=False)),
    )


def _check(
    clips: Sequence[Clip],
    lalms: Sequence[Array],
    labels: Sequence[str],
    classifier: Student | HubClassifier | None,
    config: AdaptConfig,
) -> None:
    for draws in lalms:
        if draws.shape[1:] != (len(clips), len(labels)):
            raise TrainingError(
                f"draws of shape {draws.shape} do not fit {len(clips)} clips and {len(labels)} labels"
            )
    if not lalms and labels:
        raise TrainingError("no draws: give those of one LALM at least")
    if config.keep > 0 and not isinstance(classifier, Student):
        raise TrainingError(f"keep = {config.keep:g} needs an earlier student: give one, or set keep=0")


def _settings(
    teaching: Teaching,
    clips: Sequence[Clip],
    cache: AudioCache,
    encoder: HubClassifier | None,
    taught: FusedDimensions | None,
) -> dict[str, Any]:
    """What must be the same when the run is continued."""
    classifier = teaching.classifier
    weights = () if classifier is None else classifier.state_dict().values()
    return asdict(teaching.config) | {
        "target": digest(f"{cache.hash(clip)} {clip.speaker}".encode() for clip in clips),
        "draws": digest(np.ascontiguousarray(draws).tobytes() for draws in teaching.lalms),
        "labelled": _digest_of(teaching.known),
        "shares": _digest_of(teaching.shares),
        "encoder": "" if encoder is None else encoder.encoder_digest(),
        "source": digest(weight.cpu().numpy().tobytes() for weight in weights),
        "dimensions": {} if taught is None else {name: list(ends) for name, ends in taught.ranges.items()},
        "numbers": _digest_of(None if taught is None else taught.values),
    }


def _digest_of(given: NDArray[Any] | None) -> str:
    return "" if given is None else digest([given.tobytes()])


def _adapted(teaching: Teaching, trainer: Trainer, targets: Array, taught: FusedDimensions | None) -> Adapted:
    config = teaching.config
    student = (trainer.average if config.average else trainer.student).eval().cpu()
    taught_prosody = targets
    if config.keep > 0 and isinstance(teaching.classifier, Student):
        earlier = predict(teaching.classifier, trainer.features)
        taught_prosody = (targets + config.keep * earlier) / (1 + config.keep)
    fit_prosody(student, trainer.features, taught_prosody, config.fit.balance)
    if teaching.shares is not None and config.fit.balance > 0:
        student.move_prior(teaching.shares)
    classes = len(student.labels)
    fused, lalm, classifier, answers = on_main_process(
        lambda: (
            *(_opinions(teaching) if classes else _silence(len(targets))),
            predict_all(student, trainer.features),
        )
    )
    return Adapted(
        student=student,
        history=trainer.history,
        fused=fused,
        targets=targets,
        lalm=lalm,
        classifier=classifier,
        probs=answers[:, :classes],
        shares=teaching.shares,
        dimensions=taught,
        values=answers[:, classes:] if taught else None,
    )


def _opinions(teaching: Teaching) -> tuple[Fused, Array, Array]:
    """The teachers' opinions fused, and the mean draw of each."""
    return teaching.fused(), teaching.lalm.mean(axis=0), teaching.draws.mean(axis=0)


def _silence(clips: int) -> tuple[Fused, Array, Array]:
    """The same where nobody is asked about emotions."""
    nothing, unknown = np.empty((clips, 0)), np.full(clips, np.nan)
    return Fused(nothing, unknown, unknown, unknown), nothing, nothing


def first_student(
    classifier: Student | HubClassifier | None,
    labels: Sequence[str],
    config: AdaptConfig,
    seed: int,
    dimensions: Ranges | None = None,
) -> Student:
    """The student before its first step: the classifier's weights, or fresh ones."""
    torch.manual_seed(seed)
    student = Student(labels, config.size, config.dropout, dimensions or (), config.prosody)
    if classifier is None or not config.warm_start:
        return student
    if isinstance(classifier, Student) and same_shapes(classifier, student):
        student.begin_as(classifier)
    else:
        _LOGGER.info("the classifier has other shapes than a student of size %s: from scratch", config.size)
    return student
