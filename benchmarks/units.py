"""One unit of work of `benchmarks.transfers`: a source classifier, or one method on one transfer and seed.

A unit writes one file, whole or not at all, and is skipped when its file is there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mifuse
from benchmarks.baselines import BASELINES, Task, distil
from benchmarks.provenance import code_files
from mifuse.adaptation import Adapted, adapt
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.config import override
from mifuse.exporting.bench import machine
from mifuse.fusion.recipes import RECIPES, AdaptConfig
from mifuse.models.classifier import TrainConfig, load_student, train_classifier
from mifuse.models.features import Features
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student
from mifuse.models.training import mc_dropout_draws, predict
from mifuse.teachers.draws import load_draws
from mifuse.voices.choosing import choose

Array = NDArray[np.float64]
FILES = ("source.csv", "target.csv", "lalm_draws.jsonl")
# What is scored -> the split of its clips. `known`: new speakers, each clip within the speaker's other clips,
# of which no label is read; `test`: each clip by itself.
SPLITS = {"adapt": "adapt", "test": "test", "known": "test"}
hashes: dict[Path, str] = {}
"""SHA-256 of each file, read once. Workers get the parent's: a file edited meanwhile does not part them."""


@dataclass(frozen=True)
class Transfer:
    """Source corpora (several: pooled) and the target."""

    sources: tuple[str, ...]
    target: str

    def __str__(self) -> str:
        return f"{'+'.join(self.sources)}>{self.target}"

    @classmethod
    def parse(cls, text: str) -> Transfer:
        """`a>b`, or `a+c>b` for pooled sources."""
        sources, arrow, target = text.partition(">")
        if not arrow or not sources or not target:
            raise ValueError(f"{text!r} is no transfer: write SOURCE>TARGET")
        return cls(tuple(sources.split("+")), target)


@dataclass(frozen=True)
class Method:
    """A column of the table."""

    name: str
    kind: str  # classifier | lalm | average | baseline | recipe | int8 | labels
    config: AdaptConfig
    draws: int = 0  # LALM draws that are used; 0: all
    told: int = 0  # true labels of each class that the recipe is given; the table leaves these clips out
    asked: int = 0  # true labels that it asks for, of clips that it chooses; they are left out, too


@dataclass(frozen=True)
class Unit:
    """One piece of work; `method` None trains the classifier."""

    corpora: Path
    work: Path
    transfer: Transfer
    seed: int
    train: TrainConfig
    method: Method | None = None

    def __str__(self) -> str:
        who = self.method.name if self.method else "classifier training"
        return f"{self.transfer if self.method else '+'.join(self.transfer.sources)} {who} seed {self.seed}"

    @property
    def file(self) -> Path:
        """The result of the unit; named by everything that it depends on."""
        settings: dict[str, Any] = {"train": asdict(self.train), "version": mifuse.__version__}
        if self.method is not None:
            settings |= {"config": asdict(self.method.config), "draws": self.method.draws}
            settings |= {"kind": self.method.kind}
            settings |= {"told": self.method.told} if self.method.told else {}
            settings |= {"asked": self.method.asked} if self.method.asked else {}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        # Any change of the code is another result: what a quantiser or the runtime gives is scored, too.
        files = code_files()
        files += [self.corpora / name / "source.csv" for name in self.transfer.sources]
        if self.method is not None:
            files += [self.corpora / self.transfer.target / name for name in FILES[1:]]
        for file in files:
            digest.update(file_hash(file).encode())
        sources, stem = "+".join(self.transfer.sources), digest.hexdigest()[:16]
        if self.method is None:
            return self.work / f"{sources}" / f"classifier-{self.seed}-{stem}"
        folder = self.work / f"{sources}-{self.transfer.target}"
        return folder / f"{_file_name(self.method.name)}-{self.seed}-{stem}.npz"

    @property
    def classifier(self) -> Path:
        """Folder of the classifier that the unit starts from."""
        return replace(self, method=None).file

    @property
    def student(self) -> Path:
        """Folder of the student that a recipe leaves, for int8."""
        return self.file.with_suffix(".student")


def file_hash(file: Path) -> str:
    if file not in hashes:
        hashes[file] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashes[file]


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "=.-" else "_" for c in text)


def run(unit: Unit) -> float:
    """Do a unit and leave its file. Returns seconds."""
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    unit.file.parent.mkdir(parents=True, exist_ok=True)
    if unit.method is None:
        clips = [
            c
            for name in unit.transfer.sources
            for c in read_manifest(unit.corpora / name / "source.csv").clips
        ]
        trained = train_classifier(clips, AudioCache(), config=unit.train, seed=unit.seed)
        _save_student(trained.model, unit.file)
        return time.perf_counter() - started
    result = _Work(unit, unit.method).result()
    seconds = time.perf_counter() - started
    partial = unit.file.with_suffix(".tmp")
    with partial.open("wb") as file:
        arrays: dict[str, Any] = {"seconds": seconds, "hardware": _hardware(), **result}
        np.savez(file, **arrays)
    partial.replace(unit.file)
    return seconds


def _hardware() -> str:
    """What the students were fitted on here."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else machine().cpu
    return f"{name}, torch {torch.__version__}"


def _save_student(student: Student | HubClassifier, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    student.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


class _Work:
    """One method on one transfer: probabilities of the clips of both splits."""

    def __init__(self, unit: Unit, method: Method) -> None:
        self.unit, self.method, self.cache = unit, method, AudioCache()
        folder = unit.corpora / unit.transfer.target
        self.target = folder / "target.csv"
        self.draws_file = folder / "lalm_draws.jsonl"
        manifest = read_manifest(self.target)
        self.clips: dict[str, tuple[Clip, ...]] = {
            split: manifest.select(part).clips for split, part in SPLITS.items()
        }

    def result(self) -> dict[str, Array]:
        way = getattr(self, f"_{self.method.kind}")
        result: dict[str, Array] = way()
        return result

    def draws(self, split: str = "adapt") -> Array:
        draws = load_draws(self.draws_file, self.clips[split], LABELS, self.cache)
        return draws[: self.method.draws or None]

    def features(self, split: str = "adapt") -> Features:
        features = Features.of(self.clips[split], self.cache)
        return features.anonymous() if split == "test" else features

    def source_model(self) -> Student:
        return load_student(self.unit.classifier)

    def task(self) -> Task:
        return Task(self.features(), self.draws(), self.source_model(), self.method.config, self.unit.seed)

    def both(self, student: Student) -> dict[str, Array]:
        return {split: predict(student, self.features(split)) for split in SPLITS}

    def _lalm(self) -> dict[str, Array]:
        return {split: self.draws(split).mean(axis=0) for split in SPLITS}

    def _classifier(self) -> dict[str, Array]:
        return self.both(self.source_model())

    def _average(self) -> dict[str, Array]:
        model, count = self.source_model(), self.method.config.classifier_draws
        lalm = self._lalm()
        return {
            split: (
                lalm[split] + mc_dropout_draws(model, self.features(split), count, self.unit.seed).mean(0)
            )
            / 2
            for split in SPLITS
        }

    def _baseline(self) -> dict[str, Array]:
        return self.both(BASELINES[self.method.name](self.task()))

    def _labels(self) -> dict[str, Array]:
        return self.both(distil(self.task(), np.eye(len(LABELS))[self._truth()]))

    def _truth(self) -> NDArray[np.int64]:
        """Classes of the clips to adapt to."""
        return np.array([LABELS.index(str(clip.label)) for clip in self.clips["adapt"]])

    def _told(self) -> NDArray[np.int64] | None:
        """Classes of the few clips whose labels are given, -1 of all others."""
        if not self.method.told and not self.method.asked:
            return None
        truth = self._truth()
        rng, known = np.random.default_rng(self.unit.seed), np.full(len(truth), -1)
        if self.method.asked:
            few = choose(self.clips["adapt"], self.cache, self.method.asked, self.unit.seed)
            known[few] = truth[few]
        for label in range(len(LABELS)):
            some = rng.permutation(np.flatnonzero(truth == label))[: self.method.told]
            known[some] = label
        return known

    def _recipe(self) -> dict[str, Array]:
        known = self._told()
        adapted: Adapted = adapt(
            self.clips["adapt"],
            self.draws(),
            self.source_model(),
            self.cache,
            config=self.method.config,
            seed=self.unit.seed,
            known=known,
        )
        _save_student(adapted.student, self.unit.student)
        told: dict[str, Any] = {} if known is None else {"told": known}
        return told | {
            "adapt": adapted.probs,
            "test": predict(adapted.student, self.features("test")),
            "known": predict(adapted.student, self.features("known")),
            "alone": predict(adapted.student, self.features().anonymous()),
            "targets": adapted.targets,
            "fused": adapted.fused.probs,
            "lalm_weight": adapted.fused.lalm_weight,
            "lalm": adapted.lalm,
            "classifier": adapted.classifier,
        }

    def _int8(self) -> dict[str, Array]:
        """The exported student, run by the runtime as on the device."""
        from mifuse.evaluation import Device, predict_known
        from mifuse.evaluation import predict as run_model
        from mifuse.exporting.student import export_student
        from mifuse_export import ExportConfig
        from mifuse_runtime import Recognizer

        recipe = replace(self.unit, method=replace(self.method, name=self.method.name[:-5], kind="recipe"))
        bundle = self.unit.file.with_suffix(".bundle")
        # The table shows what int8 costs, so nothing is refused here.
        export_student(
            recipe.student,
            bundle,
            ExportConfig(int8=True, max_drop=100.0),
            calibration=self.target,
            force=True,
            cache=self.cache,
        )
        result = {}
        for split in SPLITS:
            device = Device(Recognizer.load(bundle, precision="int8"))
            if split == "test":
                result[split] = run_model(device, self.clips[split], self.cache)
                continue
            result[f"{split} on the way"] = predict_known(device, self.clips[split], self.cache)
            device.learning = False  # now it knows them as well as the student does that was given all clips
            result[split] = predict_known(device, self.clips[split], self.cache)
        return result


def ablations(base: AdaptConfig) -> list[Method]:
    """The default recipe with one thing changed each; what the change leaves as it was is left out."""
    changes = {
        "no MI": "weighting=uniform",
        "no EMA teacher": "refresh=0",
        "no diversity": "fit.diversity=0",
        "no balance": "fit.balance=0",
        "no refinement": "refine.rounds=0",
        "no prior": "refine.prior=0",
        "no speakers": "refine.speakers=false,fit.speakers=0",
        "no warm start": "warm_start=false",
        "no average": "average=false",
        "M=2": "classifier_draws=2",
        "M=32": "classifier_draws=32",
        "τ=0.1": "temperature=0.1",
        "τ=10": "temperature=10",
        "m=0.99": "fit.momentum=0.99",
        "m=0.999": "fit.momentum=0.999",
        "λ=0.2": "fit.diversity=0.2",
        "λ=1": "fit.diversity=1",
    }
    methods = [Method(name, "recipe", override(base, change.split(","))) for name, change in changes.items()]
    methods += [Method(f"K={count}", "recipe", base, count) for count in (1, 2, 4)]
    return [method for method in methods if method.config != base or method.draws]


def named(name: str, overrides: list[str]) -> Method:
    """A method by its name: of this file, of a baseline, or of a recipe. KeyError when there is none."""
    default = override(RECIPES["default"], overrides)
    # A change of what only the recipe uses leaves the results of the others as they are.
    shared = ("size", "dropout", "warm_start", "classifier_draws", "temperature", "fit")
    plain = replace(AdaptConfig(), **{name: getattr(default, name) for name in shared})
    if name in ("classifier", "lalm", "average"):
        return Method(name, name, replace(AdaptConfig(), classifier_draws=default.classifier_draws))
    if name == "oracle":
        return Method(name, "labels", plain)
    if name in BASELINES:
        return Method(name, "baseline", plain)
    if name == "few":
        return Method(name, "recipe", default, told=5)
    if name == "asked":
        return Method(name, "recipe", default, asked=20)
    recipe = name.removesuffix(" int8")
    return Method(name, "recipe" if recipe == name else "int8", override(RECIPES[recipe], overrides))
