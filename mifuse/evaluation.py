"""Run a checkpoint or a bundle over the labelled clips of a manifest and score it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache, Samples
from mifuse.clips.dimensions import known_dimensions
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import Clip, Manifest, named, read_manifest
from mifuse.errors import ManifestError, MifuseError
from mifuse.runs.concordance import DimensionScore, score_dimensions
from mifuse.runs.metrics import Scores, score
from mifuse_runtime.dimensions import Ranges, in_unit

if TYPE_CHECKING:
    from mifuse.models.hub import HubClassifier
    from mifuse.models.student import Student
    from mifuse_runtime import Recognizer, Speaker

Probs = NDArray[np.float64]
Model = Callable[[Samples], Probs]  # samples (n,) at 16 kHz -> probabilities (C,), or answers (C + V,)


class Device:
    """A bundle as the device runs it: single clips, or those of speakers whom it gets to know.

    `learning`: whether it still learns from the clips of its speakers.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._speakers: dict[str, Speaker] = {}
        self.learning = True

    @property
    def dimensions(self) -> Ranges:
        """What is behind the probabilities in an answer."""
        return self._recognizer.dimensions

    def __call__(self, samples: Samples, speaker: str | None = None) -> Probs:
        known = self._known(speaker) if speaker else None
        found = self._recognizer.predict(samples, speaker=known, gate=False)
        scores = [found.scores[label] for label in self._recognizer.labels]
        return np.array([*scores, *in_unit(found.dimensions, self.dimensions)])

    def _known(self, name: str) -> Speaker:
        if name not in self._speakers:
            self._speakers[name] = self._recognizer.speaker()
        self._speakers[name].learning = self.learning
        return self._speakers[name]


class Checkpoint:
    """A model of `load_model`, on the GPU when there is one."""

    def __init__(self, model: Student | HubClassifier) -> None:
        import torch

        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.to(self._device)
        self.dimensions: Ranges = model.dimensions

    def __call__(self, samples: Samples) -> Probs:
        import torch

        with torch.inference_mode():
            found = self._model(torch.from_numpy(samples)[None].to(self._device))
        parts = found if isinstance(found, tuple) else (found,)
        return np.concatenate([part[0].double().cpu().numpy() for part in parts])


def dimensions_of(model: Model) -> Ranges:
    """The dimensions that are behind the probabilities in a model's answers; mostly none."""
    return model.dimensions if isinstance(model, Device | Checkpoint) else {}


def evaluate(
    model: str | Path,
    manifest: str | Path,
    split: str | None = None,
    *,
    engine: str = "onnxruntime",
    precision: str | None = None,
    cache: AudioCache | None = None,
) -> Scores:
    """Score a model on the labelled rows of a manifest.

    Args:
        model, engine, precision: as of `open_model`.
        split: `adapt`, `test` or `all`; None: as the manifest says, see `Manifest.select`.

    Raises:
        MifuseError: no model, no labelled rows, or labels that the model does not know.
    """
    labels, run = open_model(model, engine, precision)
    if not labels:
        raise MifuseError(f"{model} says dimensions alone: score it with `evaluate_dimensions`")
    clips = labelled_clips(manifest, Naming(labels), split).clips
    return score_clips(clips, predict(run, clips, cache)[:, : len(labels)], labels)


def evaluate_dimensions(
    model: str | Path,
    manifest: str | Path,
    split: str | None = None,
    *,
    ranges: Ranges | None = None,
    engine: str = "onnxruntime",
    precision: str | None = None,
    cache: AudioCache | None = None,
) -> dict[str, DimensionScore]:
    """Score the dimensions of a model on the rows of a manifest that have their columns, as of `evaluate`.

    Args:
        ranges: of the manifest's columns, where they are not the model's.

    Raises:
        MifuseError: no model, none with dimensions, no rows with numbers, or a number out of its range.
    """
    labels, run = open_model(model, engine, precision)
    dimensions = dimensions_of(run)
    clips, truth = judged_clips(manifest, Naming(labels), split, dimensions=dimensions, ranges=ranges)
    if not np.isfinite(truth).any():
        known = ", ".join(dimensions) or "emotions alone"
        raise ManifestError(f"{manifest}: no row has a number of what {model} says ({known})")
    return score_values(clips, truth, predict(run, clips, cache)[:, len(labels) :], dimensions)


def open_model(
    path: str | Path,
    engine: str = "onnxruntime",
    precision: str | None = None,
    labels: Sequence[str] | None = None,
) -> tuple[tuple[str, ...], Model]:
    """The labels of a model and the function that runs it.

    Args:
        path: checkpoint folder, `hf:NAME`, or a bundle's folder. Bundles are run by `mifuse_runtime`, as on
            the device; the others by torch, on the GPU when there is one.
        engine, precision: of a bundle, as in `Recognizer.load`; ignored for a checkpoint.
        labels: of a checkpoint of others, as of `load_model`; ignored for all else.

    Raises:
        MifuseError: there is no model at `path`, or it cannot be used.
    """
    if (Path(path) / "bundle.json").is_file():
        return _open_bundle(Path(path), engine, precision)
    if not str(path).startswith("hf:") and not (Path(path) / "config.json").is_file():
        raise MifuseError(
            f"{path}: neither a checkpoint (config.json) nor a bundle (bundle.json): "
            "give the folder that `mifuse train`, `adapt` or `export` wrote"
        )
    return _open_checkpoint(path, labels)


def _open_bundle(path: Path, engine: str, precision: str | None) -> tuple[tuple[str, ...], Model]:
    from mifuse_runtime import Recognizer

    recognizer = Recognizer.load(path, engine=engine, precision=precision)
    return tuple(recognizer.labels), Device(recognizer)


def _open_checkpoint(path: str | Path, labels: Sequence[str] | None) -> tuple[tuple[str, ...], Model]:
    from mifuse.models.classifier import load_model

    model = load_model(path, labels)
    return tuple(model.labels), Checkpoint(model)


def predict(model: Model, clips: Iterable[Clip], cache: AudioCache | None = None, trim: bool = True) -> Probs:
    """Answers (N, C), or (N, C + V), one run of the model a clip: no padding, as on the device."""
    cache = cache or AudioCache()
    return np.stack([model(cache.samples(clip, trim=trim)) for clip in clips])


def predict_known(
    device: Device, clips: Sequence[Clip], cache: AudioCache, seed: int = 0, *, trim: bool = True
) -> Probs:
    """Answers, as of `predict`, in a random order, on a device that learns each speaker's statistics.

    A corpus is sorted by emotion, life is not: hence the order. No label is read.
    """
    probs: dict[int, Probs] = {}
    for i in np.random.default_rng(seed).permutation(len(clips)).tolist():
        probs[i] = device(cache.samples(clips[i], trim=trim), clips[i].speaker)
    return np.stack([probs[i] for i in range(len(clips))])


def labelled_clips(path: str | Path, naming: Naming, split: str | None = None) -> Manifest:
    """The labelled rows of one split, their labels in the words of a naming.

    Raises:
        ManifestError: the manifest cannot be read, none of its rows in that split has a label, or it has
            labels that are not of the set.
    """
    manifest = read_manifest(path, labels=None).select(split)
    clips = tuple(named([clip for clip in manifest.clips if clip.label], naming, str(path)))
    if not clips:
        where = f" with split {split!r}" if split not in (None, "all") else ""
        raise ManifestError(f"{path}: no row{where} has a label: there is nothing to score")
    return replace(manifest, clips=clips)


def judged_clips(
    path: str | Path,
    naming: Naming,
    split: str | None = None,
    *,
    dimensions: Ranges,
    ranges: Ranges | None = None,
) -> tuple[list[Clip], Probs]:
    """The rows of one split that have a label or a number, and their numbers (N, V) from 0 to 1, or NaN.

    Args:
        dimensions: whose columns are looked at, where they are there.
        ranges: of the columns, where they are not those of the dimensions.

    Raises:
        ManifestError: as of `labelled_clips`, or a number is out of its range.
    """
    rows = read_manifest(path, labels=None).select(split).clips
    if not naming.labels:  # of a model that says dimensions alone
        rows = tuple(replace(clip, label=None) for clip in rows)
    values = known_dimensions(rows, {name: (ranges or dimensions)[name] for name in dimensions}, path)
    found = {clip.key: row for clip, row in zip(rows, values, strict=True)}
    kept = [clip for clip in rows if clip.label or np.isfinite(found[clip.key]).any()]
    clips = named(kept, naming, str(path))
    if not clips and not naming.labels:
        raise ManifestError(
            f"{path}: no row has a number of {', '.join(dimensions)}: nothing is to be scored"
        )
    if not clips:
        return [*labelled_clips(path, naming, split).clips], np.empty((0, 0))  # which says what is missing
    return clips, np.stack([found[clip.key] for clip in clips])


def score_values(
    clips: Sequence[Clip], truth: Probs, found: Probs, dimensions: Ranges, seed: int = 0
) -> dict[str, DimensionScore]:
    """Score values (N, V) against what the clips have; the interval is over their speakers."""
    speakers = [clip.speaker for clip in clips]
    return score_dimensions(truth, found, dimensions, speakers if any(speakers) else None, seed)


def grouped(
    labels: Sequence[str], probs: Probs, clips: Sequence[Clip], groups: Sequence[str]
) -> tuple[tuple[str, ...], Probs, tuple[Clip, ...]]:
    """Labels, probabilities (N, G) and clips where several emotions count as one.

    Args:
        groups: as `negative=angry+sad`; emotions of no group stay as they are.

    Raises:
        MifuseError: no group, or emotions that the model does not know.
    """
    from mifuse_runtime.groups import grouping, parse_groups

    names, matrix = grouping(labels, parse_groups(groups))
    place = {label: names[int(matrix[i].argmax())] for i, label in enumerate(labels)}
    return names, probs @ matrix, tuple(replace(clip, label=place[str(clip.label)]) for clip in clips)


def score_clips(clips: Sequence[Clip], probs: Probs, labels: Sequence[str], seed: int = 0) -> Scores:
    """Score predictions (N, C) against the labels of the clips; the interval is over their speakers."""
    truth = np.array([labels.index(str(clip.label)) for clip in clips])
    speakers = [clip.speaker for clip in clips]
    return score(truth, probs, speakers if any(speakers) else None, seed)
