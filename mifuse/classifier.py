"""The classifier: the source model. Ours, or any audio-classification checkpoint of transformers."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from mifuse.audio import AudioCache
from mifuse.config import require
from mifuse.errors import MifuseError, TrainingError
from mifuse.features import Features
from mifuse.frontend import SAMPLE_RATE
from mifuse.labels import LABELS, canonical
from mifuse.manifest import Clip, read_manifest
from mifuse.metrics import unweighted_accuracy
from mifuse.processes import on_main_process
from mifuse.run import close_run, open_run
from mifuse.student import Student
from mifuse.training import Fit, FitConfig, mc_dropout_draws, predict

_LOGGER = logging.getLogger(__name__)
Array = NDArray[np.float64]

SHORTEST = SAMPLE_RATE // 10  # samples: shorter clips are padded for a hub classifier


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

    model: Student
    history: list[dict[str, float]]
    validation_ua: float  # %, on speakers that it was not trained on


def train_classifier(
    clips: Sequence[Clip],
    cache: AudioCache,
    *,
    config: TrainConfig | None = None,
    seed: int = 0,
    labels: Sequence[str] = LABELS,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Trained:
    """Train a classifier on labelled clips, keeping the epoch that does best on held-out speakers.

    Args:
        clips: labelled clips; unlabelled ones are left out.
        progress: called with the record of each epoch.

    Raises:
        TrainingError: fewer than two classes, or fewer than two speakers.
    """
    config = config or TrainConfig()
    clips = [clip for clip in clips if clip.label is not None]
    classes = {clip.label for clip in clips}
    if len(classes) < 2:
        raise TrainingError(
            f"{len(clips)} labelled clips of {len(classes)} classes: a classifier needs at least two"
        )
    held_out = _held_out(clips, config.validation, seed)
    train = [clip for clip, held in zip(clips, held_out, strict=True) if not held]
    valid = [clip for clip, held in zip(clips, held_out, strict=True) if held]
    truth = np.array([labels.index(str(clip.label)) for clip in train])
    valid_truth = np.array([labels.index(str(clip.label)) for clip in valid])
    torch.manual_seed(seed)
    student = Student(labels=labels, size=config.size, dropout=config.dropout)
    fit = Fit(student, Features.of(train, cache), config.fit, seed)
    valid_features = Features.of(valid, cache)
    best, best_ua, waited = fit.average.state_dict(), -1.0, 0
    targets = np.eye(len(labels))[truth]

    def validation_ua() -> float:
        predictions = predict(fit.average, valid_features).argmax(1)
        return unweighted_accuracy(valid_truth, predictions, len(labels))

    while fit.epoch < fit.epochs and waited < config.patience:
        record = fit.run_epoch(targets)
        # One process decides for all: averages differ a little, and all must stop at the same epoch.
        record["validation_ua"] = on_main_process(validation_ua)
        waited += 1
        if record["validation_ua"] > best_ua:
            best_ua, waited = record["validation_ua"], 0
            best = {k: v.clone() for k, v in fit.average.state_dict().items()}
        progress(record)
    fit.average.load_state_dict(best)
    return Trained(fit.average.cpu(), fit.history, best_ua)


def train_manifest(
    manifest: Path,
    out: Path,
    *,
    config: TrainConfig | None = None,
    seed: int = 0,
    force: bool = False,
    cache: AudioCache | None = None,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> dict[str, Any]:
    """`mifuse train`: from a manifest to a run folder `out`. Returns what run.json holds.

    Raises:
        MifuseError: any input that cannot be used; nothing is written then.
    """
    started = time.perf_counter()
    config = config or TrainConfig()
    clips = read_manifest(manifest).clips
    with open_run(out, force=force) as partial:
        trained = train_classifier(clips, cache or AudioCache(), config=config, seed=seed, progress=progress)
        record = {
            "kind": "train",
            "config": asdict(config),
            "seed": seed,
            "source": str(manifest.resolve()),
            "history": trained.history,
            "validation_ua": trained.validation_ua,
            "seconds": time.perf_counter() - started,
        }
        close_run(partial, out, trained.model, record)
    return record


def _held_out(clips: Sequence[Clip], share: float, seed: int) -> list[bool]:
    """Which clips belong to the held-out speakers; a clip without a speaker is a speaker of its own."""
    names = [clip.speaker or clip.name for clip in clips]
    speakers = sorted(set(names))
    if len(speakers) < 2:
        raise TrainingError(
            f"all clips are of one speaker ({speakers[0]}): early stopping needs a second one to listen to"
        )
    count = min(max(1, round(share * len(speakers))), len(speakers) - 1)
    held = set(np.random.default_rng(seed).choice(speakers, count, replace=False).tolist())
    return [name in held for name in names]


class HubClassifier(nn.Module):
    """A `transformers` audio-classification checkpoint with its labels mapped to ours.

    Args:
        name: hub name or folder of a checkpoint (wav2vec2, HuBERT, WavLM, …).
        labels: our labels; each must be found among the checkpoint's, under its name or an alias.

    Raises:
        MifuseError: the checkpoint cannot be read, or its labels do not cover ours.
    """

    def __init__(self, name: str, labels: Sequence[str] = LABELS) -> None:
        super().__init__()
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        try:
            self.model: Any = AutoModelForAudioClassification.from_pretrained(name)
            self.extractor: Any = AutoFeatureExtractor.from_pretrained(name)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, SafetensorError) as error:
            reason = _first_line(error)
            raise MifuseError(f"hf:{name} cannot be loaded as an audio classifier: {reason}") from error
        if self.extractor.sampling_rate != SAMPLE_RATE:
            raise MifuseError(
                f"hf:{name} hears audio of {self.extractor.sampling_rate} Hz: "
                f"choose a checkpoint for {SAMPLE_RATE} Hz"
            )
        self.labels = tuple(labels)
        theirs = [str(label) for _, label in sorted(self.model.config.id2label.items())]
        self.sources = [[i for i, t in enumerate(theirs) if canonical(t, labels) == ours] for ours in labels]
        missing = [ours for ours, sources in zip(labels, self.sources, strict=True) if not sources]
        if missing:
            raise MifuseError(
                f"hf:{name} has the labels {', '.join(theirs)}: none of them is {', '.join(missing)}; "
                "set id2label in its config.json to names that are"
            )
        self.eval()

    def forward(self, samples: Tensor) -> Tensor:
        """Probabilities (batch, C) over our labels of samples (batch, n) at 16 kHz."""
        # The convolutions of wav2vec2 and its heirs need 25 ms at least.
        samples = nn.functional.pad(samples, (0, max(0, SHORTEST - samples.shape[1])))
        inputs = self.extractor(
            list(samples.cpu().numpy()), sampling_rate=SAMPLE_RATE, return_tensors="pt", padding=True
        )
        device = next(self.model.parameters()).device
        theirs = self.model(**{k: v.to(device) for k, v in inputs.items()}).logits.softmax(dim=-1)
        ours = torch.stack([theirs[:, sources].sum(dim=1) for sources in self.sources], dim=1)
        return ours / ours.sum(dim=1, keepdim=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_model(path: str | Path) -> Student | HubClassifier:
    """A checkpoint: a folder of ours, or `hf:NAME_OR_PATH` of transformers; in eval mode.

    Raises:
        MifuseError: there is no checkpoint, or it does not fit.
    """
    text = str(path)
    if text.startswith("hf:"):
        return HubClassifier(text[3:])
    folder = Path(path)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise MifuseError(
                f"{folder}: no {name} there; give the folder that `mifuse train` or `adapt` wrote, or hf:NAME"
            )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the mixin prints, and --json owns stdout
            return Student.from_pretrained(folder).eval()
    except (ValueError, TypeError, AttributeError, RuntimeError, KeyError, SafetensorError) as error:
        raise MifuseError(
            f"{folder}: not a student of ours ({_first_line(error)}): train it again or give another folder"
        ) from error


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
