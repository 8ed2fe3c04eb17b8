"""Archives as they are in the field: what the recipe gains there, and whether the verdict knew.

    python -m benchmarks.field --corpora ../shared/corpora --labels        # label-only, minutes
    python -m benchmarks.field --corpora ../shared/corpora --out benchmarks/results/field.json
    python -m benchmarks.field --corpora ../shared/corpora --labels --asked 1 2 4 8    # fewer draws a clip
    python -m benchmarks.field --corpora ../shared/corpora --labels --ablate           # without its parts

A cell is a transfer, a stand-in LALM and an archive cut from the target: as it is, mostly one emotion, one
emotion absent, speakers of one or two emotions, no speaker names, 200 clips, or "speakers 1 of 3": other
speakers are the new ones, a cross-validation. True labels make the archives and score them; no method reads
them. A finished cell is kept in --work and not computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import archives, charts, field_table, units, workers
from benchmarks.baselines import BASELINES, Task
from benchmarks.provenance import code_files, provenance
from benchmarks.transfers import find_corpora
from benchmarks.units import Transfer, Unit
from mifuse.adaptation import adapt
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.clips.shards import Joined
from mifuse.config import override
from mifuse.fusion.recipes import RECIPES, AdaptConfig
from mifuse.fusion.teaching import Teaching
from mifuse.models.classifier import TrainConfig, load_student
from mifuse.models.features import Features
from mifuse.models.hub import HubClassifier
from mifuse.models.training import mc_dropout_draws, predict
from mifuse.teachers.draws import load_draws
from mifuse.voices.states import StatisticsAndStates
from mifuse.voices.statistics import voice_statistics
from mifuse_runtime.shares import smoothed

Array = NDArray[np.float64]
DRAWS = ("lalm_draws.jsonl", "lalm2_draws.jsonl")
SKEWED = ("70 % neutral", "85 % neutral", "70 % angry", "no angry")
ARCHIVES = ("as is", *SKEWED, "one emotion a speaker", "two emotions a speaker", "no names", "200 clips")
FOLDS = ("speakers 1 of 3", "speakers 2 of 3", "speakers 3 of 3")
METHODS = ("labels", "default", "paper", "LALM-only")
ABLATIONS: tuple[tuple[str, ...], ...] = (  # settings
    (), ("refine.rounds=0",), ("refine.speakers=false",), ("refine.prior=0",),
    ("weighting=uniform",), ("weighting=mi",),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One piece of work: a method on an archive."""

    corpora: Path
    work: Path
    transfer: Transfer
    draws: str
    archive: str
    method: str  # of METHODS; with " + shares" the true class shares are given
    seed: int = 0
    asked: int | None = None  # draws of each clip that are used; None: all
    settings: tuple[str, ...] = ()  # that differ from the recipe's, as of `mifuse adapt --set`
    encoder: Path | None = None  # of transformers; refinement looks at its states, too

    @property
    def classifier(self) -> Unit:
        """What trains the source classifier."""
        return Unit(self.corpora, self.work, self.transfer, self.seed, TrainConfig())

    @property
    def file(self) -> Path:
        """The result, named by everything that it depends on."""
        how = [self.draws, self.archive, self.method, self.seed, self.asked, asdict(self.config)]
        text = json.dumps(how, sort_keys=True)
        digest = hashlib.sha256(text.encode())
        target = self.corpora / self.transfer.target
        sources = [self.corpora / name / "source.csv" for name in self.transfer.sources]
        files = [*code_files(), Path(archives.__file__), target / "target.csv", target / self.draws, *sources]
        files += [] if self.encoder is None else sorted(self.encoder.glob("*.safetensors"))
        for file in files:
            digest.update(units.file_hash(file).encode())
        return self.work / "field" / f"{digest.hexdigest()[:24]}.npz"

    def __str__(self) -> str:
        return f"{self.transfer} {self.draws.partition('_')[0]} {self.archive}: {self.how}"

    @property
    def config(self) -> AdaptConfig:
        """The recipe with its settings."""
        return override(RECIPES["paper" if self.method.startswith("paper") else "default"], self.settings)

    @property
    def how(self) -> str:
        """The method, the draws that it uses where these are not all, and its settings."""
        asked = () if self.asked is None else (f"K = {self.asked}",)
        encoder = () if self.encoder is None else (f"with {self.encoder.name}",)
        return ", ".join([self.method, *asked, *encoder, *self.settings])


def cut(clips: Sequence[Clip], archive: str) -> list[Clip]:
    """The clips of a target with that archive."""
    ways: dict[str, Callable[[], list[Clip]]] = {
        "as is": lambda: list(clips),
        "70 % neutral": lambda: archives.mostly(clips, "neutral", 0.7),
        "85 % neutral": lambda: archives.mostly(clips, "neutral", 0.85),
        "70 % angry": lambda: archives.mostly(clips, "angry", 0.7),
        "no angry": lambda: archives.without(clips, "angry"),
        "one emotion a speaker": lambda: archives.moods(clips, 1),
        "two emotions a speaker": lambda: archives.moods(clips, 2),
        "no names": lambda: archives.nameless(clips),
        "200 clips": lambda: archives.few(clips, 200),
        **{name: partial(archives.fold, clips, i, len(FOLDS)) for i, name in enumerate(FOLDS, 1)},
    }
    return ways[archive]()


def run(cell: Cell) -> float:
    """Do a cell and leave its file. Returns seconds."""
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    arrays = _result(cell)
    partial = cell.file.with_suffix(".tmp")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(cell.file)
    return time.perf_counter() - started


def _result(cell: Cell) -> dict[str, Any]:
    """Probabilities of everybody for archive and new speakers, true classes, and the verdict as JSON."""
    cache, folder = AudioCache(), cell.corpora / cell.transfer.target
    rows = cut(read_manifest(folder / "target.csv").clips, cell.archive)
    clips, test = ([clip for clip in rows if clip.split == split] for split in ("adapt", "test"))
    draws, test_draws = (
        load_draws(folder / cell.draws, part, LABELS, cache)[: cell.asked] for part in (clips, test)
    )
    truth, test_truth = (np.array([LABELS.index(str(c.label)) for c in part]) for part in (clips, test))
    model = load_student(cell.classifier.file)
    features, anonymous = Features.of(test, cache), Features.of(test, cache).anonymous()
    method, _, given = cell.method.partition(" + ")
    shares = smoothed(np.bincount(truth, minlength=len(LABELS)) / len(truth)) if given else None
    config = cell.config
    encoder = (
        None if cell.encoder is None else HubClassifier(str(cell.encoder), LABELS, TrainConfig().dropout)
    )
    found: dict[str, Any] = {
        "truth": truth,
        "test_truth": test_truth,
        "LALM": draws.mean(axis=0),
        "test LALM": test_draws.mean(axis=0),
        "test classifier": mc_dropout_draws(model, anonymous, config.classifier_draws).mean(axis=0),
    }
    if method == "labels":
        statistics = voice_statistics(clips, cache)
        measured: Joined | StatisticsAndStates = statistics
        if encoder is not None:
            measured = StatisticsAndStates(statistics, encoder.embeddings(clips, cache))
        teaching = Teaching(clips, [draws], model, measured, cache=cache, config=config, shares=shares)
        labels = teaching.refined(teaching.draws).labels
        return found | {"labels": labels, "classifier": teaching.draws.mean(axis=0)}
    if method == "LALM-only":
        task = Task(Features.of(clips, cache), draws, model, replace(config, verdict=False), cell.seed)
        student = BASELINES["lalm-only"](task)
        found["student"] = predict(student, Features.of(clips, cache))
    else:
        adapted = adapt(
            *(clips, draws, model, cache), config=config, seed=cell.seed, shares=shares, encoder=encoder
        )
        student, verdict = adapted.student, adapted.verdict
        found |= {"labels": adapted.targets, "classifier": adapted.classifier, "student": adapted.probs}
        found["verdict"] = np.array(json.dumps(None if verdict is None else verdict.as_json()))
    return found | {"test student": predict(student, anonymous), "known student": predict(student, features)}


def cells(options: argparse.Namespace) -> list[Cell]:
    """All cells that are asked for, in an order in which early ones say most."""
    names = find_corpora(options.corpora)
    transfers = options.transfers or [f"{a}>{b}" for b in names for a in names if a != b]
    methods = ("labels",) if options.labels else options.methods
    found = []
    for archive, method, asked, settings, draws, text in itertools.product(
        *(options.archives, methods, options.asked),
        *(ABLATIONS if options.ablate else [tuple(options.set)], options.draws, transfers),
    ):
        more: dict[str, Any] = {"asked": asked, "settings": settings, "encoder": options.encoder}
        transfer = Transfer.parse(text)
        found.append(Cell(options.corpora, options.work, transfer, draws, archive, method, **more))
        if archive in SKEWED and method in ("labels", "default"):
            found.append(replace(found[-1], method=f"{method} + shares"))
    return found


def compute(todo: Sequence[Cell], jobs: int) -> list[str]:
    """Do the cells, sources first; what failed, a line each."""
    sources = {cell.classifier.file: cell.classifier for cell in todo}
    failed: list[str] = []
    stages: list[list[tuple[Any, Any]]] = [
        [(units.run, unit) for unit in sources.values() if not unit.file.exists()],
        [(run, cell) for cell in todo if not cell.file.exists()],
    ]
    for stage in stages:
        with workers.pool(jobs, units.hashes.update, dict(units.hashes)) as pool:
            waiting = {pool.submit(what, one): one for what, one in stage}
            for done, future in enumerate(as_completed(waiting), 1):
                error = future.exception()
                text = str(waiting[future])
                failed += [] if error is None else [f"{text}: {type(error).__name__}: {error}"]
                outcome = failed[-1] if error is not None else f"{future.result():.0f} s"
                print(f"[{done}/{len(stage)}] {text}: {outcome}", file=sys.stderr, flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute, print, write. Exit code 1 when a cell failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.field",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpora", type=Path, required=True, help="folder of corpora")
    parser.add_argument(
        "--work", type=Path, default=Path("build/field"), help="where finished cells are kept"
    )
    parser.add_argument("--labels", action="store_true", help="labels alone, no students")
    parser.add_argument(
        "--archives", nargs="+", choices=[*ARCHIVES, *FOLDS], default=list(ARCHIVES), metavar="ARCHIVE"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["default", "paper", "LALM-only"])
    parser.add_argument("--draws", nargs="+", default=list(DRAWS), metavar="FILE", help="of each corpus")
    parser.add_argument("--asked", nargs="+", type=int, default=[None], metavar="K", help="draws a clip")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as of `mifuse adapt`")
    parser.add_argument("--ablate", action="store_true", help="the recipe, and without each of its parts")
    parser.add_argument("--encoder", type=Path, metavar="FOLDER", help="as of `mifuse adapt --encoder`")
    parser.add_argument("--transfers", nargs="+", metavar="SOURCE>TARGET", help="all, unless named")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--no-compute", action="store_true", help="show what is finished")
    parser.add_argument("--out", type=Path, help="JSON of the table")
    parser.add_argument("--picture", type=Path, help="SVG of the cells that have a student")
    options = parser.parse_args(arguments)
    todo = cells(options)
    failed = [] if options.no_compute else compute(todo, options.jobs)
    document = field_table.document([cell for cell in todo if cell.file.exists()])
    print(field_table.markdown(document))
    if options.out:
        text = json.dumps({"provenance": provenance(), **document}, indent=1) + "\n"
        partial = options.out.with_name(f".{options.out.name}.tmp")
        partial.write_text(text, encoding="utf-8")
        partial.replace(options.out)
    if options.picture:
        students = [row for row in document["cells"] if "student" in row["adapt"]]
        options.picture.write_text(charts.field(students), encoding="utf-8")
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
