"""MI-Fuse: a student for the target, from draws of a LALM and of a classifier, without labels.

The loop: fuse the draws of both teachers, fit the student to the fused labels, let the classifier teacher
follow the student, fuse again. Source: Huang, Lin, Lee, "MI-Fuse", arXiv 2509.20706 (2025).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.errors import MifuseError, TrainingError
from mifuse.fusion.recipes import RECIPES, AdaptConfig
from mifuse.fusion.teaching import Teaching
from mifuse.fusion.weighting import Fused
from mifuse.models.classifier import load_model
from mifuse.models.features import Features
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student
from mifuse.models.training import Trainer, predict, same_shapes
from mifuse.models.training_state import TrainingState, digest
from mifuse.runs.folder import close_run, open_run
from mifuse.runs.predictions import Predictions, key
from mifuse.runs.processes import on_main_process
from mifuse.teachers.draws import load_draws
from mifuse.voices.choosing import doubted
from mifuse.voices.clustering import strangers
from mifuse.voices.statistics import features_and_statistics

_LOGGER = logging.getLogger(__name__)
Array = NDArray[np.float64]


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
    cache: AudioCache | None = None,
    *,
    config: AdaptConfig | None = None,
    seed: int = 0,
    known: NDArray[np.int64] | None = None,
    student: Callable[[], Student] | None = None,
    state: Path | None = None,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Adapted:
    """Adapt a student to unlabelled clips.

    Args:
        clips: N target clips; their labels are not read.
        lalm_draws: (K, N, C), in the order of the classifier's labels.
        classifier: the source model; it is not changed.
        cache: of decoded audio and of what is computed of it; None: the one of this machine.
        known: class of each clip that the user has labelled, -1 of all others, (N,).
        student: makes the student before its first step; None: as `config` says.
        state: folder of the run's state: written after each epoch, continued from when it holds one.
        progress: called with the record of each epoch.

    Raises:
        TrainingError: the loss is not finite, the student collapsed, or `state` is of another run.
    """
    config, cache = config or RECIPES["default"], cache or AudioCache()
    _check(clips, lalm_draws, classifier, config)
    if config.refine.rounds > 0:
        features, statistics = features_and_statistics(clips, cache)
    else:
        features, statistics = Features.of(clips, cache), None
    trainer = Trainer(
        first_student(classifier, config, seed) if student is None else student(),
        *(features, config.fit, seed),
        earlier=classifier if isinstance(classifier, Student) and config.keep > 0 else None,
        keep=config.keep,
    )
    teaching = Teaching(
        clips, lalm_draws, classifier, statistics, cache=cache, config=config, seed=seed, known=known
    )
    saved = TrainingState(state, _settings(teaching, cache))
    targets = saved.load(trainer).get("targets", np.empty(0))
    while trainer.epoch < trainer.epochs:
        if teaching.is_due(trainer.epoch):
            # Once for all processes: their batch norm statistics, and so their draws, differ.
            targets = on_main_process(lambda: teaching.labels(trainer))
        progress(trainer.run_epoch(targets))
        saved.save(trainer, {"targets": targets})
    return _adapted(teaching, trainer, targets)


def _check(
    clips: Sequence[Clip], lalm_draws: Array, classifier: Student | HubClassifier, config: AdaptConfig
) -> None:
    if lalm_draws.shape[1:] != (len(clips), len(classifier.labels)):
        raise TrainingError(
            f"draws of shape {lalm_draws.shape} do not fit "
            f"{len(clips)} clips and {len(classifier.labels)} labels"
        )
    if config.keep > 0 and not isinstance(classifier, Student):
        raise TrainingError(f"keep = {config.keep:g} needs an earlier student: give one, or set keep=0")


def _settings(teaching: Teaching, cache: AudioCache) -> dict[str, Any]:
    """What must be the same when the run is continued."""
    known, weights = teaching.known, teaching.classifier.state_dict().values()
    return asdict(teaching.config) | {
        "target": digest(f"{cache.hash(clip)} {clip.speaker}".encode() for clip in teaching.clips),
        "draws": digest([np.ascontiguousarray(teaching.lalm).tobytes()]),
        "labelled": "" if known is None else digest([known.tobytes()]),
        "source": digest(weight.cpu().numpy().tobytes() for weight in weights),
    }


def _adapted(teaching: Teaching, trainer: Trainer, targets: Array) -> Adapted:
    student = (trainer.average if teaching.config.average else trainer.student).eval()
    fused, classifier, probs = on_main_process(
        lambda: (teaching.fused(), teaching.draws.mean(axis=0), predict(student, trainer.features))
    )
    return Adapted(
        student=student.cpu(),
        history=trainer.history,
        fused=fused,
        targets=targets,
        lalm=teaching.lalm.mean(axis=0),
        classifier=classifier,
        probs=probs,
    )


def first_student(classifier: Student | HubClassifier, config: AdaptConfig, seed: int) -> Student:
    """The student before its first step: the classifier's weights, or fresh ones."""
    torch.manual_seed(seed)
    student = Student(labels=classifier.labels, size=config.size, dropout=config.dropout)
    if config.warm_start and same_shapes(classifier, student):
        student.load_state_dict(classifier.state_dict())
    elif config.warm_start:
        _LOGGER.info("the classifier has other shapes than a student of size %s: from scratch", config.size)
    return student


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
