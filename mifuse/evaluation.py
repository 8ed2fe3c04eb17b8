"""Run a checkpoint or a bundle over the labelled clips of a manifest and score it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache, Samples
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import Clip, Manifest, named, read_manifest
from mifuse.errors import ManifestError, MifuseError
from mifuse.runs.metrics import Scores, score

if TYPE_CHECKING:
    from mifuse_runtime import Recognizer, Speaker

Probs = NDArray[np.float64]
Model = Callable[[Samples], Probs]  # samples (n,) at 16 kHz -> probabilities (C,)


class Device:
    """A bundle as the device runs it: single clips, or those of speakers whom it gets to know.

    `learning`: whether it still learns from the clips of its speakers.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._speakers: dict[str, Speaker] = {}
        self.learning = True

    def __call__(self, samples: Samples, speaker: str | None = None) -> Probs:
        known = self._known(speaker) if speaker else None
        scores = self._recognizer.predict(samples, speaker=known, gate=False).scores
        return np.array([scores[label] for label in self._recognizer.labels])

    def _known(self, name: str) -> Speaker:
        if name not in self._speakers:
            self._speakers[name] = self._recognizer.speaker()
        self._speakers[name].learning = self.learning
        return self._speakers[name]


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
    clips = labelled_clips(manifest, Naming(labels), split).clips
    return score_clips(clips, predict(run, clips, cache), labels)


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
    import torch

    from mifuse.models.classifier import load_model

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(path, labels).to(device)

    def run(samples: Samples) -> Probs:
        with torch.inference_mode():
            probs = model(torch.from_numpy(samples)[None].to(device))
        return np.asarray(probs[0].cpu(), dtype=np.float64)

    return tuple(model.labels), run


def predict(model: Model, clips: Iterable[Clip], cache: AudioCache | None = None, trim: bool = True) -> Probs:
    """Probabilities (N, C) of the clips, one run of the model a clip: no padding, as on the device."""
    cache = cache or AudioCache()
    return np.stack([model(cache.samples(clip, trim=trim)) for clip in clips])


def predict_known(
    device: Device, clips: Sequence[Clip], cache: AudioCache, seed: int = 0, *, trim: bool = True
) -> Probs:
    """Probabilities (N, C) of the clips in a random order, on a device that learns each speaker's statistics.

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
