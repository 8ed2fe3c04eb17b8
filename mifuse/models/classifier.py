"""The classifier: the source model. A student of ours, or an audio-classification model of transformers."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from mifuse.clips.audio import AudioCache
from mifuse.clips.dimensions import dimension_values
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import ANY, Clip, read_manifest
from mifuse.clips.speech import spoken
from mifuse.config import require
from mifuse.errors import MifuseError, TrainingError
from mifuse.models.checkpoints import first_line
from mifuse.models.dimensions import DimensionTargets
from mifuse.models.features import Features
from mifuse.models.head import fit_linear, middle_weights
from mifuse.models.hub import HubClassifier, one_thread
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer, mc_dropout_draws, predict_all
from mifuse.runs.concordance import mean_ccc
from mifuse.runs.folder import close_run, open_run
from mifuse.runs.metrics import unweighted_accuracy
from mifuse.runs.processes import on_main_process
from mifuse_runtime.dimensions import Ranges

_LOGGER = logging.getLogger(__name__)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrainConfig:
    """How the source classifier is trained."""

    size: str = "s"  # of the student that serves as classifier
    dropout: float = 0.2  # 0 is off, and leaves MC dropout without draws
    validation: float = 0.2  # share of speakers held out for early stopping
    patience: int = 6  # epochs without a better validation UA before it stops
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        require(self, validation=(0, 1), patience=(1, math.inf))


@dataclass(frozen=True)
class Trained:
    """A trained classifier and how it got there."""

    model: Student | HubClassifier
    history: list[dict[str, float]]
    validation_ua: float  # %, on speakers that it was not trained on
    validation_ccc: float | None = None  # mean of the dimensions, likewise; None: there are none


def train_classifier(
    clips: Sequence[Clip],
    cache: AudioCache | None = None,
    *,
    config: TrainConfig | None = None,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    dimensions: Ranges | None = None,
    encoder: str | None = None,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Trained:
    """Train a classifier on labelled clips; the epoch, or a head's penalty, is the best on held-out speakers.

    Args:
        clips: labelled clips; unlabelled ones are left out.
        labels: the set, in the order of the probabilities; None: the labels of the clips.
        dimensions: columns of the clips that a student learns beside the labels, each with its range.
        cache: of decoded audio and of what is computed of it; None: the one of this machine.
        encoder: name or folder of a `transformers` encoder that gets a head; None trains a student.
        progress: called with the record of each epoch; before, with {"encoded": n} after n clips.

    Raises:
        TrainingError: fewer than two classes, or fewer than two speakers.
        MifuseError: the encoder cannot be used, or dimensions that are no numbers within their range.
    """
    config, cache = config or TrainConfig(), cache or AudioCache()
    clips = [clip for clip in clips if clip.label is not None]
    labels = _label_set(clips, labels)
    held_out = _held_out(clips, config.validation, seed)
    torch.manual_seed(seed)
    if encoder is not None:
        if dimensions:
            raise MifuseError("dimensions are learnt by students: leave out --encoder, or --targets")
        if replace(config, dropout=TrainConfig.dropout) != TrainConfig():
            _LOGGER.warning("an encoder's head is fitted at once: of the settings, only dropout counts")
        return _trained_head(
            HubClassifier(encoder, labels, config.dropout), clips, cache, seed=seed, progress=progress
        )
    train = [clip for clip, held in zip(clips, held_out, strict=True) if not held]
    valid = [clip for clip, held in zip(clips, held_out, strict=True) if held]
    truth, valid_truth = (np.array([labels.index(str(c.label)) for c in part]) for part in (train, valid))
    student = Student(labels, config.size, config.dropout, dimensions or ())
    return _trained_student(
        *(student, (train, valid), (truth, valid_truth)),
        cache=cache,
        config=config,
        seed=seed,
        progress=progress,
    )


def _trained_head(
    hub: HubClassifier,
    clips: Sequence[Clip],
    cache: AudioCache,
    *,
    seed: int,
    progress: Callable[[dict[str, float]], object],
) -> Trained:
    """An encoder under a head fitted to labelled clips, its penalty chosen on speakers left out."""
    count = itertools.count(1)
    embeddings = hub.embeddings(clips, cache, lambda: progress({"encoded": next(count)}))
    truth = np.array([hub.labels.index(str(clip.label)) for clip in clips])
    hub.model.layer_weights.data = middle_weights(len(hub.model.layer_weights))
    with one_thread():
        head = fit_linear(
            *(hub.pooled(embeddings), truth, embeddings.speakers, _names(clips)),
            classes=len(hub.labels),
            seed=seed,
            progress=progress,
        )
    hub.take(head)
    return Trained(hub.cpu(), head.history, head.history[head.best]["validation_ua"])


def _trained_student(
    student: Student,
    clips: tuple[Sequence[Clip], Sequence[Clip]],
    truth: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    cache: AudioCache,
    config: TrainConfig,
    seed: int,
    progress: Callable[[dict[str, float]], object],
) -> Trained:
    """A student fitted to clips and their classes; the second part of both is held out."""
    classes = len(student.labels)
    values, valid_values = (dimension_values(part, student.dimensions, "the clips") for part in clips)
    empty = [name for v, name in enumerate(student.dimensions) if not np.isfinite(values[:, v]).any()]
    if empty:
        raise TrainingError(
            f"no clip to train on has a number of {empty[0]}: fill it in, or leave it out of --targets"
        )
    taught = DimensionTargets(values) if student.dimensions else None
    fit = Trainer(student, Features.of(clips[0], cache), config.fit, seed, dimensions=taught)
    features = Features.of(clips[1], cache)

    def scores() -> dict[str, float]:
        answers = predict_all(fit.average, features)
        found = {"validation_ua": ua(truth[1], answers[:, :classes])}
        return found | ({"validation_ccc": mean_ccc(valid_values, answers[:, classes:])} if taught else {})

    best = _fit_best(fit, truth[0], scores, config.patience, progress)
    return Trained(fit.average.cpu(), fit.history, **best)


def _label_set(clips: Sequence[Clip], labels: Sequence[str] | None) -> Sequence[str]:
    """The labels of a classifier that learns from the clips: those wanted, or those that occur.

    Raises:
        TrainingError: the clips do not go with them, or have one class alone.
    """
    found = Counter(str(clip.label) for clip in clips)
    if len(found) < 2:
        raise TrainingError(
            f"{len(clips)} labelled clips of {len(found)} classes: a classifier needs at least two"
        )
    labels = labels or Naming().set_of(found, "the labelled clips")
    if strange := [label for label in found if label not in labels]:
        raise TrainingError(
            f"{found[strange[0]]} clips are labelled {strange[0]!r}: the labels are {', '.join(labels)}"
        )
    if absent := [label for label in labels if label not in found]:
        _LOGGER.warning("no clip is labelled %s: the classifier cannot learn that", ", ".join(absent))
    return labels


def ua(truth: NDArray[np.int64], probs: Array) -> float:
    """UA in % of probabilities (N, C)."""
    return unweighted_accuracy(truth, probs.argmax(1), probs.shape[1])


def _fit_best(
    fit: Trainer,
    truth: NDArray[np.int64],
    scores: Callable[[], dict[str, float]],
    patience: int,
    progress: Callable[[dict[str, float]], object],
) -> dict[str, float]:
    """Fit until the scores of `fit.average` no longer rise; leave the best one there and return its scores.

    A UA of 60 % counts as much as a CCC of .6.
    """
    best, best_scores, best_sum, waited = fit.average.state_dict(), {}, -math.inf, 0
    targets = np.eye(len(fit.student.labels))[truth]
    while fit.epoch < fit.epochs and waited < patience:
        record = fit.run_epoch(targets)
        # One process decides for all: averages differ a little, and all must stop at the same epoch.
        found = on_main_process(scores)
        record |= found
        waited += 1
        total = found["validation_ua"] / 100 + found.get("validation_ccc", 0.0)
        if total > best_sum:
            best_scores, best_sum, waited = found, total, 0
            best = {k: v.clone() for k, v in fit.average.state_dict().items()}
        progress(record)
    fit.average.load_state_dict(best)
    return best_scores


def train_manifest(
    manifest: Path,
    out: Path,
    *,
    config: TrainConfig | None = None,
    seed: int = 0,
    encoder: str | None = None,
    naming: Naming = ANY,
    dimensions: Ranges | None = None,
    force: bool = False,
    cache: AudioCache | None = None,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> dict[str, Any]:
    """`mifuse train`: from a manifest to a run folder `out`. Returns what run.json holds.

    Args:
        encoder, dimensions: as of `train_classifier`.
        naming: of the labels; without a set they are those that the manifest has.

    Raises:
        MifuseError: any input that cannot be used; nothing is written then.
    """
    started = time.perf_counter()
    config = config or TrainConfig()
    cache = cache or AudioCache()
    labelled = [clip for clip in read_manifest(manifest, naming).clips if clip.label]
    dimension_values(labelled, dimensions or {}, manifest)  # before minutes of work
    clips = spoken(labelled, cache)
    with open_run(out, force=force) as partial:
        trained = train_classifier(
            *(clips, cache),
            config=config,
            seed=seed,
            labels=naming.labels,
            dimensions=dimensions,
            encoder=encoder,
            progress=progress,
        )
        record = {
            "kind": "train",
            "encoder": encoder,
            "config": asdict(config),
            "seed": seed,
            "source": str(manifest.resolve()),
            "history": trained.history,
            "validation_ua": trained.validation_ua,
            "validation_ccc": trained.validation_ccc,
            "seconds": time.perf_counter() - started,
        }
        close_run(partial, out, trained.model, record)
    return record


def _names(clips: Sequence[Clip]) -> list[str]:
    """Whose each clip is; one without a speaker is of a speaker of its own."""
    return [clip.speaker or clip.name for clip in clips]


def _held_out(clips: Sequence[Clip], share: float, seed: int) -> list[bool]:
    """Which clips belong to the held-out speakers."""
    names = _names(clips)
    speakers = sorted(set(names))
    if len(speakers) < 2:
        raise TrainingError(
            f"all clips are of one speaker ({speakers[0]}): early stopping needs a second one to listen to"
        )
    count = min(max(1, round(share * len(speakers))), len(speakers) - 1)
    held = set(np.random.default_rng(seed).choice(speakers, count, replace=False).tolist())
    return [name in held for name in names]


def load_model(path: str | Path, labels: Sequence[str] | None = None) -> Student | HubClassifier:
    """A checkpoint: a folder of ours, or `hf:NAME_OR_PATH` of transformers; in eval mode.

    The folder of a head that `mifuse train --encoder` wrote is one of transformers; it needs no `hf:`.

    Args:
        labels: of a checkpoint of others, as of `HubClassifier`; our own have their labels with them.

    Raises:
        MifuseError: there is no checkpoint, or it does not fit.
    """
    text = str(path)
    if text.startswith("hf:"):
        return HubClassifier(text[3:], labels)
    folder = Path(path)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise MifuseError(f"{folder} is no student or classifier: {_other_than_checkpoint(folder, name)}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the mixin prints, and --json owns stdout
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if "model_type" in config:
                return HubClassifier(text)
            return Student.from_pretrained(folder, strict=True).eval()
    except (ValueError, TypeError, AttributeError, RuntimeError, KeyError, SafetensorError) as error:
        raise MifuseError(
            f"{folder}: not a student of ours ({first_line(error)}): train it again or give another folder"
        ) from error


def _other_than_checkpoint(folder: Path, missing: str) -> str:
    """What was given in the place of a checkpoint, and what to give."""
    inside = [part for part in ("student", "source") if (folder / part / "model.safetensors").is_file()]
    if (folder / "bundle.json").is_file():
        made = "it is a bundle, which `mifuse export` made of one (`mifuse-runtime info` shows it)"
        return f"{made}; give the folder that was exported"
    if inside:
        return "give " + " or ".join(str(folder / part) for part in inside) + ", which it holds"
    if any(folder.glob("pytorch_model*.bin")):
        return f"its weights are a pickle, which mifuse does not open; hf:{folder} says how to convert them"
    if (folder / "manifest.csv").is_file():
        return f"it holds recordings; train one with `mifuse train {folder / 'manifest.csv'}`"
    found = f"no {missing} there" if folder.is_dir() else "it is a file"
    found = found if folder.exists() else "there is no such folder"
    return f"{found}; give the folder that `mifuse train` or `adapt` wrote, or hf:NAME"


def load_student(folder: Path) -> Student:
    """A checkpoint that is a student of ours; in eval mode.

    Raises:
        MifuseError: there is none.
    """
    model = load_model(folder)
    if not isinstance(model, Student):
        raise MifuseError(f"{folder} holds no student: give a folder that `mifuse train` or `adapt` wrote")
    return model


def classifier_draws(
    model: Student | HubClassifier,
    clips: Sequence[Clip],
    cache: AudioCache,
    draws: int,
    seed: int = 0,
) -> Array:
    """MC-dropout draws of any classifier, (draws, N, C): dropout on, all else as in inference."""
    if isinstance(model, Student):
        return mc_dropout_draws(model, Features.of(clips, cache), draws, seed)
    if model.dropout is not None:
        return model.draws(model.embeddings(clips, cache), draws, seed)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    torch.manual_seed(seed)
    out = np.empty((draws, len(clips), len(model.labels)))
    with torch.inference_mode():
        for i, clip in enumerate(clips):
            samples = torch.from_numpy(np.array(cache.samples(clip), dtype=np.float32))[None]
            for draw in range(draws):
                out[draw, i] = model(samples)[0].cpu().numpy()
    model.eval()
    return out
