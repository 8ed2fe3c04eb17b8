"""The classifier: the source model. A student of ours, or an audio-classification model of transformers."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import math
import time
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
from mifuse.models.learning import classes_of, held_out, label_set, names, to_learn
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
    validation_ua: float | None  # %, on speakers that it was not trained on; None: it says no emotions
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
        labels: the set, in the order of the probabilities; None: the labels of the clips. With dimensions
            none, or empty: dimensions alone are learnt, from the clips that have numbers.
        dimensions: columns of the clips that a student learns beside the labels, each with its range.
        cache: of decoded audio and of what is computed of it; None: the one of this machine.
        encoder: name or folder of a `transformers` encoder that gets a head; None trains a student.
        progress: called with the record of each epoch; before, with {"encoded": n} after n clips.

    Raises:
        TrainingError: fewer than two classes, or fewer than two speakers.
        MifuseError: the encoder cannot be used, or dimensions that are no numbers within their range.
    """
    config, cache = config or TrainConfig(), cache or AudioCache()
    clips = to_learn(clips, labels, dimensions or {})
    labels = label_set(clips, labels)
    held = held_out(clips, config.validation, seed)
    torch.manual_seed(seed)
    if encoder is not None:
        if dimensions:
            raise MifuseError("dimensions are learnt by students: leave out --encoder, or --targets")
        if replace(config, dropout=TrainConfig.dropout) != TrainConfig():
            _LOGGER.warning("an encoder's head is fitted at once: of the settings, only dropout counts")
        return _trained_head(
            HubClassifier(encoder, labels, config.dropout), clips, cache, seed=seed, progress=progress
        )
    train = [clip for clip, out in zip(clips, held, strict=True) if not out]
    valid = [clip for clip, out in zip(clips, held, strict=True) if out]
    student = Student(labels, config.size, config.dropout, dimensions or ())
    return _trained_student(
        *(student, (train, valid)),
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
            *(hub.pooled(embeddings), truth, embeddings.speakers, names(clips)),
            classes=len(hub.labels),
            seed=seed,
            progress=progress,
        )
    hub.take(head)
    return Trained(hub.cpu(), head.history, head.history[head.best]["validation_ua"])


def _trained_student(
    student: Student,
    clips: tuple[Sequence[Clip], Sequence[Clip]],
    *,
    cache: AudioCache,
    config: TrainConfig,
    seed: int,
    progress: Callable[[dict[str, float]], object],
) -> Trained:
    """A student fitted to clips as they are labelled; the second part of them is held out."""
    classes = len(student.labels)
    truth, valid_truth = (classes_of(part, student.labels) for part in clips)
    values, valid_values = (dimension_values(part, student.dimensions, "the clips") for part in clips)
    empty = [name for v, name in enumerate(student.dimensions) if not np.isfinite(values[:, v]).any()]
    if empty:
        raise TrainingError(
            f"no clip to train on has a number of {empty[0]}: fill it in, or leave it out of --targets"
        )
    for v, name in enumerate(student.dimensions):
        if np.nanmin(values[:, v]) == np.nanmax(values[:, v]):
            raise TrainingError(
                f"all clips to train on have the same {name}: there is nothing to learn of it"
            )
    taught = DimensionTargets(values) if student.dimensions else None
    fit = Trainer(student, Features.of(clips[0], cache), config.fit, seed, dimensions=taught)
    features = Features.of(clips[1], cache)

    def scores() -> dict[str, float]:
        answers = predict_all(fit.average, features)
        found = {"validation_ua": ua(valid_truth, answers[:, :classes])} if classes else {}
        return found | ({"validation_ccc": mean_ccc(valid_values, answers[:, classes:])} if taught else {})

    targets = np.eye(classes)[truth] if classes else np.empty((len(truth), 0))
    best = _fit_best(fit, targets, scores, config.patience, progress)
    return Trained(fit.average.cpu(), fit.history, best.get("validation_ua"), best.get("validation_ccc"))


def ua(truth: NDArray[np.int64], probs: Array) -> float:
    """UA in % of probabilities (N, C)."""
    return unweighted_accuracy(truth, probs.argmax(1), probs.shape[1])


def _fit_best(
    fit: Trainer,
    targets: Array,
    scores: Callable[[], dict[str, float]],
    patience: int,
    progress: Callable[[dict[str, float]], object],
) -> dict[str, float]:
    """Fit targets (N, C) until the scores of `fit.average` no longer rise; leave the best there, return them.

    A UA of 60 % counts as much as a CCC of .6.
    """
    best, best_scores, best_sum, waited = fit.average.state_dict(), {}, -math.inf, 0
    while fit.epoch < fit.epochs and waited < patience:
        record = fit.run_epoch(targets)
        # One process decides for all: averages differ a little, and all must stop at the same epoch.
        found = on_main_process(scores)
        record |= found
        waited += 1
        total = found.get("validation_ua", 0.0) / 100 + found.get("validation_ccc", 0.0)
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
    # Where no label is wanted, rows may be labelled with anything.
    rows = read_manifest(manifest, None if naming.labels == () else naming).clips
    clips = to_learn(rows, naming.labels, dimensions or {})
    dimension_values(clips, dimensions or {}, manifest)  # before minutes of work
    clips = [*spoken(clips, cache)]
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
    """MC-dropout draws of any classifier, (draws, N, C): dropout on, all else as in inference.

    Of a regression of others (draws, N, V), its dimensions.
    """
    if isinstance(model, Student):
        return mc_dropout_draws(model, Features.of(clips, cache), draws, seed)
    if model.dropout is not None:
        return model.draws(model.embeddings(clips, cache), draws, seed)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    torch.manual_seed(seed)
    out = np.empty((draws, len(clips), len(model.labels or model.dimensions)))
    with torch.inference_mode():
        for i, clip in enumerate(clips):
            samples = torch.from_numpy(np.array(cache.samples(clip), dtype=np.float32))[None]
            for draw in range(draws):
                out[draw, i] = model(samples)[0].cpu().numpy()
    model.eval()
    return out
