"""`mifuse adapt`: from files to a run folder."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mifuse.adaptation import Adapted, adapt
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import Naming, require_same_labels
from mifuse.clips.manifest import ANY, Clip, read_manifest
from mifuse.clips.speech import spoken
from mifuse.errors import MifuseError
from mifuse.fusion.recipes import RECIPES, AdaptConfig
from mifuse.fusion.shares import check_agrees, parse_shares
from mifuse.models.classifier import TrainConfig, load_model
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student
from mifuse.runs.folder import close_run, open_run
from mifuse.runs.predictions import Predictions
from mifuse.teachers.draws import draws_labels, load_draws
from mifuse.teachers.draws_quality import costs
from mifuse.teachers.numbers import load_numbers, said_by
from mifuse.voices.choosing import DRAWN, doubted, draw
from mifuse.voices.clustering import unnamed_clips
from mifuse_runtime.dimensions import Ranges

_LOGGER = logging.getLogger(__name__)
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class AdaptInputs:
    """What `mifuse adapt` is given, as files and as typed."""

    source: str | None  # checkpoint folder or hf:NAME of the classifier; None: the LALMs alone teach
    target: Path  # manifest; its `adapt` rows are used where it has a split
    draws: Sequence[Path]  # draws stores or JSONL
    teachers: Sequence[str] = ()  # of one file, as many as wanted; of several, one each
    labelled: Path | None = None  # manifest of the few target clips whose labels may be learnt from
    check: Path | None = None  # random check set with labels, see `mifuse choose --random`
    encoder: str | None = None  # name or folder of a transformers encoder that refinement looks at, too
    shares: str | None = None  # class shares, as in "neutral=.7,angry=.1"
    naming: Naming = (
        ANY  # of labels in draws, check set and labelled clips; its set, if any, is the student's
    )
    dimensions: Ranges = field(default_factory=dict)  # to be taught, too; empty: those of the source, if any


def adapt_manifest(
    inputs: AdaptInputs,
    out: Path,
    *,
    config: AdaptConfig | None = None,
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    cache: AudioCache | None = None,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> dict[str, Any]:
    """Adapt a student to the clips of a manifest, into the run folder `out`. Returns what run.json holds.

    Args:
        resume: continue an interrupted run.

    Raises:
        MifuseError: any input that cannot be used; nothing is written then.
    """
    started = time.perf_counter()
    config, cache = config or RECIPES["default"], cache or AudioCache()
    classifier = None if inputs.source is None else load_model(inputs.source, inputs.naming.labels)
    if config.keep > 0 and isinstance(classifier, Student):
        config = replace(config, size=classifier.size)
    labels = _labels(inputs, classifier)
    encoder = None if inputs.encoder is None else HubClassifier(inputs.encoder, labels, TrainConfig().dropout)
    naming = inputs.naming.over(labels)
    clips = spoken(read_manifest(inputs.target, labels=None).select("adapt").clips, cache)
    lalms = _lalms(inputs, clips, naming, cache)
    ranges, numbers = _numbers(inputs, clips, classifier, cache)
    _check_alone(inputs, labels, ranges)
    known = None if inputs.labelled is None else _known(inputs.labelled, clips, naming, cache)
    check = None if inputs.check is None else _check_set(inputs.check, clips, naming, cache)
    shares = None if inputs.shares is None else parse_shares(inputs.shares, labels)
    if shares is not None and check is not None:
        check_agrees(shares, check, labels)
    with open_run(out, resume=resume, force=force) as partial:
        adapted = adapt(
            clips,
            lalms,
            classifier,
            cache,
            labels=labels,
            config=config,
            seed=seed,
            known=known,
            check=check,
            shares=shares,
            encoder=encoder,
            dimensions=ranges,
            dimension_draws=numbers,
            state=partial,
            progress=progress,
        )
        predictions = _predictions(adapted, clips)
        record = _record(inputs, adapted, config, clips, predictions)
        record |= {"seed": seed, "seconds": time.perf_counter() - started}
        record |= {"labelled": 0 if known is None else int((known >= 0).sum())}
        close_run(partial, out, adapted.student, record, predictions)
    return record


def _labels(inputs: AdaptInputs, classifier: Student | HubClassifier | None) -> tuple[str, ...]:
    """Of the student, in the order of its probabilities: the classifier's, those asked for, or the draws'.

    Empty where all of these say numbers alone, or none are wanted.
    """
    wanted = inputs.naming.labels
    if classifier is not None and wanted != ():
        require_same_labels(classifier.labels, wanted or classifier.labels, "--labels")
        return tuple(classifier.labels)
    if wanted is not None:
        return wanted
    every = (draws_labels(path, who, inputs.naming) for path, who in _teachers(inputs))
    return next(filter(None, every), ())


def _ranges(inputs: AdaptInputs, classifier: Student | HubClassifier | None) -> Ranges:
    """The student's dimensions: those asked for, or the source's.

    Raises:
        MifuseError: the source counts one of them in another range.
    """
    own = {} if classifier is None else classifier.dimensions
    if not isinstance(classifier, Student):  # others count from 0 to 1, whatever the range is
        return inputs.dimensions or own
    for name, (low, high) in own.items():
        asked = inputs.dimensions.get(name, (low, high))
        if asked != (low, high):
            raise MifuseError(
                f"{inputs.source} says {name} from {low:g} to {high:g}, and --range {asked[0]:g} to "
                f"{asked[1]:g}: state the range of the source, as in --range {name}={low:g}:{high:g}"
            )
    return inputs.dimensions or own


def _numbers(
    inputs: AdaptInputs,
    clips: Sequence[Clip],
    classifier: Student | HubClassifier | None,
    cache: AudioCache,
) -> tuple[Ranges, list[NDArray[np.float64]]]:
    """The student's dimensions, and the numbers (K, N, V) of each LALM, if there are any."""
    ranges = _ranges(inputs, classifier)
    for path, who in _teachers(inputs):
        if others := sorted(said_by(path, who) - set(ranges)):
            names = ", ".join(others)
            _LOGGER.warning("%s also says %s, which is not taught: --targets would", path, names)
    teachers = _teachers(inputs) if ranges else []
    return ranges, [load_numbers(path, clips, ranges, cache, who) for path, who in teachers]


def _means(adapted: Adapted, ranges: Ranges) -> dict[str, dict[str, Any]]:
    """Of each dimension, in its own range: the means of what was taught and of what the student says."""
    if adapted.dimensions is None or adapted.values is None:
        return {}
    taught, said = np.nanmean(adapted.dimensions.values, axis=0), adapted.values.mean(axis=0)
    found: dict[str, dict[str, Any]] = {}
    for column, (name, (low, high)) in enumerate(ranges.items()):
        taken = {who: float(share[:, column].mean()) for who, share in adapted.dimensions.shares.items()}
        means = {"taught": low + taught[column] * (high - low), "student": low + said[column] * (high - low)}
        found[name] = {
            "range": [low, high],
            **{who: float(mean) for who, mean in means.items()},
            "shares": taken,
        }
    return found


def _record(
    inputs: AdaptInputs,
    adapted: Adapted,
    config: AdaptConfig,
    clips: Sequence[Clip],
    predictions: Predictions,
) -> dict[str, Any]:
    labels = predictions.labels
    return {
        "kind": "adapt",
        "labels": labels,
        "config": asdict(config),
        "source": inputs.source,
        "encoder": inputs.encoder,
        "target": str(inputs.target.resolve()),
        "draws": [str(path.resolve()) for path in inputs.draws],
        "cost": _cost(inputs.draws),
        "clips": len(clips),
        "unnamed": len(unnamed_clips([clip.speaker for clip in clips])),
        "doubted": [labels[c] for c in doubted(adapted.targets, adapted.lalm)] if labels else [],
        "shares": None if adapted.shares is None else dict(zip(labels, adapted.shares.tolist(), strict=True)),
        "verdict": None if adapted.verdict is None else adapted.verdict.as_json(),
        "fusion": {f"{who.lower()}_prior": p.mean(0).tolist() for who, p in predictions.probs.items()},
        "dimensions": _means(adapted, adapted.student.dimensions),
        "history": adapted.history,
    }


def _cost(draws: Sequence[Path]) -> dict[str, dict[str, float]]:
    """What the draws of each source took to get; nothing of those in JSONL."""
    return {
        str(source): {"usd": one.usd, "unsettled_usd": one.unsettled_usd, "draws": one.draws}
        for path in draws
        for source, one in costs(path).items()
    }


def _lalms(
    inputs: AdaptInputs, clips: Sequence[Clip], naming: Naming, cache: AudioCache
) -> list[NDArray[np.float64]]:
    """Draws (K, N, C) of each LALM that says emotions; none where the student says numbers alone."""
    if not naming.labels:
        return []
    teachers = _teachers(inputs)
    # Beside others, one may say numbers alone.
    asked = [(path, who) for path, who in teachers if not said_by(path, who) or draws_labels(path, who)]
    return [load_draws(path, clips, naming, cache, who) for path, who in asked or teachers]


def _check_alone(inputs: AdaptInputs, labels: Sequence[str], ranges: Ranges) -> None:
    """Refuse what a student without emotions has no use for.

    Raises:
        MifuseError: which, and what to do.
    """
    if labels:
        return
    if not ranges:
        raise MifuseError(
            "draws and source say no emotions: name the numbers to teach, as in --targets arousal,valence"
        )
    given = {"--check": inputs.check, "--labelled": inputs.labelled, "--shares": inputs.shares}
    for name, value in (given | {"--encoder": inputs.encoder}).items():
        if value is not None:
            raise MifuseError(f"{name} is about emotions, which this student does not say: leave it out")


def _teachers(inputs: AdaptInputs) -> list[tuple[Path, str | None]]:
    """File and name of each LALM."""
    paths = list(inputs.draws)
    teachers: list[str | None] = [*inputs.teachers]
    if len(paths) == 1:
        return [(paths[0], teacher) for teacher in teachers or [None]]
    if teachers and len(teachers) != len(paths):
        raise MifuseError(
            f"{len(teachers)} teachers for {len(paths)} files of draws: name one for each file, in order"
        )
    return list(zip(paths, teachers or [None] * len(paths), strict=True))


def _known(labelled: Path, clips: Sequence[Clip], naming: Naming, cache: AudioCache) -> Indices:
    """Class of each clip that the manifest `labelled` has, by content, and -1 of all others."""
    return _by_content(labelled, read_manifest(labelled, naming).clips, clips, naming.labels or (), cache)


def _by_content(
    labelled: Path,
    rows: Sequence[Clip],
    clips: Sequence[Clip],
    labels: Sequence[str],
    cache: AudioCache,
) -> Indices:
    classes: dict[str, int] = {}
    for clip in rows:
        if clip.label is None:
            raise MifuseError(f"{labelled}: {clip.name} has no label: give one, or leave the row out")
        index = labels.index(clip.label)
        if classes.setdefault(cache.hash(clip), index) != index:
            raise MifuseError(
                f"{labelled}: {clip.name} has another label than the same recording above: "
                "leave out one of the two"
            )
    hashes = [cache.hash(clip) for clip in clips]
    missing = len(classes.keys() - set(hashes))
    if missing:
        raise MifuseError(
            f"{labelled}: {missing} of its {len(classes)} clips are not among those to adapt to: "
            "add them to the target manifest, or leave them out"
        )
    return np.array([classes.get(digest, -1) for digest in hashes])


def _check_set(check: Path, clips: Sequence[Clip], naming: Naming, cache: AudioCache) -> Indices:
    """Class of each clip of a random check set, -1 of all others.

    Raises:
        MifuseError: it was not drawn at random from these clips, or is not filled in.
    """
    rows = read_manifest(check, naming).clips
    drawn = {clip.extra.get(DRAWN, "") for clip in rows}
    found = re.fullmatch(r"random (\d+) of (\d+), seed (\d+)", drawn.pop() if len(drawn) == 1 else "")
    if not found:
        raise MifuseError(
            f"{check} was not drawn by `mifuse choose --random`: only a random set measures without bias; "
            "draw one, or give this one as --labelled"
        )
    count, whole, seed = map(int, found.groups())
    hashes = {cache.hash(clip) for clip in rows}
    wanted = {cache.hash(clips[i]) for i in draw(clips, cache, count, seed)} if whole == len(clips) else set()
    if hashes - wanted or whole != len(clips):
        raise MifuseError(
            f"{check} was drawn from {whole} clips, not from these {len(clips)}: draw it again "
            "with `mifuse choose --random` from the manifest that you adapt to"
        )
    empty = len(wanted - hashes) + sum(clip.label is None for clip in rows)
    if empty:
        raise MifuseError(
            f"{check}: {empty} of the {count} clips that were drawn have no label: leaving out the hard ones "
            "would make the estimate too good; label them all"
        )
    return _by_content(check, rows, clips, naming.labels or (), cache)


def _predictions(adapted: Adapted, clips: Sequence[Clip]) -> Predictions:
    keys = tuple(clip.key for clip in clips)
    if not adapted.student.labels:
        return Predictions((), keys, {})
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
    return Predictions(adapted.student.labels, keys, probs, measures)
