"""Which clips of a target calibrate a bundle, and which ones judge it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import SAMPLE_RATE, AudioCache, Samples, duration
from mifuse.clips.dimensions import has_dimensions, known_dimensions
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import Clip, Manifest, read_manifest
from mifuse.errors import AudioError
from mifuse_runtime.dimensions import Ranges

if TYPE_CHECKING:
    from mifuse.models.hub import HubClassifier
    from mifuse.models.student import Student
    from mifuse_export import Probe

_LOGGER = logging.getLogger(__name__)

CALIBRATION_CLIPS = 200
PROBE_CLIPS = 400
LONGEST = 10 * SAMPLE_RATE  # samples of a clip that are used: the device looks at a few seconds at a time

T = TypeVar("T")
Bar = Callable[[Iterable[Clip]], Iterable[Clip]]  # wraps the decoding of clips, for a progress bar


def calibration_samples(
    manifest: Manifest, model: Student | HubClassifier, cache: AudioCache, bar: Bar = iter
) -> list[Samples]:
    """Clips of the manifest that set the ranges of int8: of every predicted class, of all durations."""
    clips = read_clips(calibration_clips(manifest, 2 * CALIBRATION_CLIPS), cache, bar)
    return stratified(clips, predicted_classes(model, clips), CALIBRATION_CLIPS)


def calibration_clips(manifest: Manifest, count: int = CALIBRATION_CLIPS) -> list[Clip]:
    """Up to `count` clips spread evenly over the durations; of the `adapt` split where there is one."""
    adapt = [clip for clip in manifest.clips if clip.split == "adapt"]
    clips = _spread(adapt or list(manifest.clips), 10 * count)  # headers of 2,000 files, not of 100,000
    return _spread(sorted(clips, key=_seconds), count)


def predicted_classes(model: Student | HubClassifier, clips: Sequence[Samples]) -> NDArray[np.int64]:
    """The model's class of each clip, (N,)."""
    from mifuse_export.onnx import frozen
    from mifuse_export.parity import probabilities, torch_predict

    if not clips or not model.labels:
        return np.zeros(len(clips), np.int64)
    answers = probabilities(torch_predict(frozen(model)), clips)
    return np.asarray(answers[:, : len(model.labels)].argmax(axis=1))


def stratified(clips: Sequence[Samples], classes: NDArray[np.int64], count: int) -> list[Samples]:
    """`count` of the clips: of every class as many, where it has them, spread over the durations in each.

    >>> clips = [np.zeros(n, np.float32) for n in range(1, 9)]
    >>> [len(clip) for clip in stratified(clips, np.array([0, 0, 0, 0, 0, 0, 1, 2]), 4)]
    [1, 6, 7, 8]
    """
    groups = sorted((np.flatnonzero(classes == c) for c in np.unique(classes)), key=len)
    chosen: list[int] = []
    for left, group in zip(range(len(groups), 0, -1), groups, strict=True):
        share = -((len(chosen) - min(count, len(clips))) // left)  # rounded up: what it lacks, others give
        ordered = sorted(group.tolist(), key=lambda i: len(clips[i]))
        chosen += _spread(ordered, share)
    return [clips[i] for i in sorted(chosen[:count], key=lambda i: len(clips[i]))]


def probe_clips(manifest: Manifest, naming: Naming, count: int = PROBE_CLIPS) -> list[Clip]:
    """Up to `count` labelled clips that judge int8; labels of `adapt` rows are for `evaluate` alone."""
    labelled = [clip for clip in manifest.clips if clip.split != "adapt" and clip.label]
    meant = {word: naming.label(word) for word in {str(clip.label) for clip in labelled}}
    unknown = sorted(word for word, label in meant.items() if label is None)
    if unknown:
        _LOGGER.warning(
            "%s: no labels of the model: %s; their clips judge nothing", manifest.path, ", ".join(unknown)
        )
    named = [replace(clip, label=meant[str(clip.label)]) for clip in labelled]
    return _spread([clip for clip in named if clip.label], count)


def judges(
    source: Path,
    naming: Naming,
    ranges: Ranges | None = None,
    *,
    cache: AudioCache | None = None,
    bar: Bar = iter,
) -> Probe:
    """Clips of a manifest that judge a bundle: the labelled ones off the adapt split, else any, unlabelled.

    Raises:
        MifuseError: the manifest or one of its clips cannot be read.
    """
    from mifuse_export import Probe

    manifest, cache = read_manifest(source, labels=None), cache or AudioCache()
    found = labelled_probe(manifest, naming, ranges or {}, cache, bar)
    return found or Probe(read_clips(calibration_clips(manifest), cache, bar))


def labelled_probe(
    manifest: Manifest, naming: Naming, ranges: Ranges, cache: AudioCache, bar: Bar
) -> Probe | None:
    """Labelled clips that judge int8, with the dimensions that their columns have; None: there are none."""
    from mifuse_export import Probe

    clips = probe_clips(manifest, naming) if naming.labels else _numbered(manifest, ranges)
    if not clips:
        return None
    values = known_dimensions(clips, ranges, manifest.path)
    if not naming.labels:
        return Probe(read_clips(clips, cache, bar), values=values)
    classes = [naming.labels.index(str(clip.label)) for clip in clips]
    return Probe(read_clips(clips, cache, bar), np.array(classes, dtype=np.int64), values)


def _numbered(manifest: Manifest, ranges: Ranges, count: int = PROBE_CLIPS) -> list[Clip]:
    """Up to `count` clips off the adapt split that have a number: they judge a model of dimensions alone."""
    clips = [clip for clip in manifest.clips if clip.split != "adapt" and has_dimensions([clip], ranges)]
    return _spread(clips, count)


def read_clips(clips: Sequence[Clip], cache: AudioCache, bar: Bar) -> list[Samples]:
    """The first ten seconds of each clip, as a student learns from it."""
    return [cache.samples(clip)[:LONGEST] for clip in (bar(clips) if clips else ())]


def _spread(clips: Sequence[T], count: int) -> list[T]:
    if len(clips) <= count:
        return list(clips)
    return [clips[round(i)] for i in np.linspace(0, len(clips) - 1, count)]


def _seconds(clip: Clip) -> float:
    if clip.end is not None:
        return clip.end - (clip.start or 0.0)
    try:
        return duration(clip)
    except AudioError:
        return 0.0  # decoding it says what is wrong
