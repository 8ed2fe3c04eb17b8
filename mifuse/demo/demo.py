"""The whole way in one run: two synthetic domains (or two manifests), train, label, adapt, export, compare.

Everything is done by the functions behind the commands; only the comparison at the end is the demo's own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mifuse import evaluation as evaluate
from mifuse.adapt_files import AdaptInputs, adapt_manifest
from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip, Manifest, read_manifest
from mifuse.demo.stand_in import stand_in_lalm
from mifuse.demo.synth import make_domain
from mifuse.errors import DrawsError, MifuseError
from mifuse.exporting.bench import Latency, bench, machine
from mifuse.exporting.student import export_student
from mifuse.files import whole_file
from mifuse.fusion.recipes import AdaptConfig
from mifuse.fusion.weighting import fuse
from mifuse.models.classifier import TrainConfig, train_manifest
from mifuse.runs.metrics import unweighted_accuracy
from mifuse.runs.predictions import Predictions, read_predictions, write_predictions
from mifuse.runs.report import write_report
from mifuse.teachers.draws import load_draws
from mifuse.teachers.labelling import label_clips, plan
from mifuse.teachers.replay import ReplayTeacher
from mifuse.teachers.store.database import DrawsStore

Floats = NDArray[np.float64]
Tick = Callable[[int], None]
# name of a stage, and its length -> a context that gives what to call with each bit of progress
Stage = Callable[[str, int], AbstractContextManager[Tick]]

PARTS = ("data", "source", "student", "bundle")  # folders that a demo makes in its own
KNOWN = "student int8, known voice"  # of whom the device has had earlier clips
RUNS = {"LALM": "paid service", "average": "service, device"}  # all others on the device alone
SYNTHETIC = (
    "The recordings are synthetic speech and the LALM is a stand-in, hand-made rules on the audio: "
    "the numbers show that the whole way works, and say nothing about real speech."
)


@dataclass(frozen=True)
class DemoConfig:
    """How large the demo is."""

    source_speakers: int = 40
    target_speakers: int = 52  # many, as archives have: what a student knows of new voices it knows from them
    test_speakers: int = 12  # of the target's
    clips_per_speaker: int = 16
    seconds: float = 2.0  # of a synthetic clip
    draws: int = 8  # K, of the stand-in LALM
    size: str = "s"  # of classifier and student
    train_steps: int = 500
    adapt_steps: int = 500
    calls: int = 100  # timed calls of each precision
    seed: int = 0


QUICK = DemoConfig(
    source_speakers=6, target_speakers=8, test_speakers=3, clips_per_speaker=14, size="xs", train_steps=100,
    adapt_steps=100, calls=30,
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """What the demo starts from."""

    source: Path  # manifest with labels
    target: Path  # manifest; its labels are for the table
    draws: Path  # JSONL of the LALM
    lalm: str = "LALM"  # what to call it
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of the table; None where there is nothing to say."""

    name: str
    ua_adapt: float | None  # %
    ua_test: float | None  # %
    size_kb: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None


@contextmanager
def _silent(name: str, length: int) -> Iterator[Tick]:
    yield lambda _: None


def run_demo(
    out: Path, inputs: Inputs | None = None, config: DemoConfig | None = None, stage: Stage = _silent
) -> tuple[list[Row], Path]:
    """Run everything into the folder `out`.

    Args:
        inputs: real manifests and draws; None makes synthetic ones.
        stage: called with each stage and its progress.

    Returns:
        The rows of the table and the path of the report.

    Raises:
        MifuseError: `out` holds something else, or a stage fails.
    """
    config, cache = config or DemoConfig(), AudioCache()
    inputs = build(out, inputs, config, cache, stage)
    target = read_manifest(inputs.target)
    predictions = _predict(inputs, target, out, cache, stage)
    with stage("bench", 1):
        times = bench(out / "bundle", seconds=(3.0,), calls=config.calls)
    rows = _rows(predictions, target, out, times)
    _record(inputs, out, config, predictions, rows)
    with stage("report", 1):
        return rows, write_report(out)


def build(
    out: Path, inputs: Inputs | None, config: DemoConfig, cache: AudioCache, stage: Stage = _silent
) -> Inputs:
    """From nothing, or from given manifests, to `out`/bundle; returns what it was made from."""
    _prepare_folder(out)
    synthetic = inputs is None
    inputs = inputs or make_inputs(out / "data", config, cache, stage)
    _train(inputs, out, config, cache, stage)
    _label(inputs, read_manifest(inputs.target), out / "draws.db", cache, stage)
    _adapt(inputs, out, config, cache, stage)
    with stage("export", 1):
        from mifuse_export import ExportConfig

        export_student(
            out / "student",
            out / "bundle",
            ExportConfig(int8=True, force_int8=True),
            calibration=inputs.target,
            demo=synthetic,
            cache=cache,
        )
    return inputs


def _prepare_folder(out: Path) -> None:
    """Make `out`, or clear what an earlier demo left there; anything else is left alone."""
    marker = out / "run.json"
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not _is_demo(marker):
        raise MifuseError(f"{out} exists and no demo made it: choose another folder with -o")
    for part in PARTS:
        if (out / part).exists():
            shutil.rmtree(out / part)
    for file in ("draws.db", "draws.db-wal", "draws.db-shm", "predictions.csv", "report.html"):
        (out / file).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"kind": "demo", "labels": []}), encoding="utf-8")


def _is_demo(marker: Path) -> bool:
    try:
        return bool(json.loads(marker.read_text(encoding="utf-8"))["kind"] == "demo")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def given_inputs(source: Path, target: Path, draws: Path) -> Inputs:
    """Real manifests and draws; those of a stand-in are called so by the name of their teacher.

    Raises:
        DrawsError: the draws cannot be replayed.
    """
    stand_in = ReplayTeacher(draws).source.teacher.startswith("stand-in")
    return Inputs(source, target, draws, "stand-in LALM" if stand_in else "LALM")


def make_inputs(folder: Path, config: DemoConfig, cache: AudioCache, stage: Stage = _silent) -> Inputs:
    """Synthesise a source and a target domain, and let the stand-in LALM listen to the target."""
    size: dict[str, Any] = {"clips_per_speaker": config.clips_per_speaker, "seconds": config.seconds}
    with stage("synthesise", 2) as tick:
        source = make_domain(
            folder / "studio", "studio", speakers=config.source_speakers, seed=config.seed, **size
        )
        tick(1)
        target = make_domain(
            folder / "phone",
            "phone",
            speakers=config.target_speakers,
            test_speakers=config.test_speakers,
            seed=config.seed + 1,
            **size,
        )
    manifest = read_manifest(target)
    with stage("listen", len(manifest)) as tick:
        draws = stand_in_lalm(
            manifest, folder / "lalm_draws.jsonl", draws=config.draws, seed=config.seed, cache=cache,
            progress=lambda done, _: tick(1),
        )  # fmt: skip
    return Inputs(source, target, draws, "stand-in LALM", (SYNTHETIC,))


def _train(inputs: Inputs, out: Path, config: DemoConfig, cache: AudioCache, stage: Stage) -> None:
    base = TrainConfig()
    settings = replace(base, size=config.size, fit=replace(base.fit, steps=config.train_steps))
    with stage("train", -(-settings.fit.steps // settings.fit.steps_per_epoch)) as tick:
        train_manifest(
            inputs.source, out / "source", config=settings, seed=config.seed, force=True, cache=cache,
            progress=lambda _: tick(1),
        )  # fmt: skip


def _label(inputs: Inputs, target: Manifest, path: Path, cache: AudioCache, stage: Stage) -> None:
    teacher = ReplayTeacher(inputs.draws)
    with DrawsStore(path) as store:
        todo = plan(target.clips, teacher.default_draws, store.keys(teacher.source), cache)
        with stage("label", len(todo.questions)) as tick:
            done = asyncio.run(label_clips(teacher, todo.questions, store, tick))
    if done.missing:
        raise DrawsError(
            f"{inputs.draws}: {len(done.missing)} draws are missing, first: {done.missing[0][1]}"
        )


def _adapt(inputs: Inputs, out: Path, config: DemoConfig, cache: AudioCache, stage: Stage) -> None:
    base = AdaptConfig()
    settings = replace(base, size=config.size, fit=replace(base.fit, steps=config.adapt_steps))
    given = AdaptInputs(str(out / "source"), inputs.target, [out / "draws.db"])
    with stage("adapt", settings.steps // settings.fit.steps_per_epoch) as tick:
        adapt_manifest(
            given, out / "student", config=settings, seed=config.seed, force=True, cache=cache,
            progress=lambda _: tick(1),
        )  # fmt: skip


def _predict(inputs: Inputs, target: Manifest, out: Path, cache: AudioCache, stage: Stage) -> Predictions:
    """What everyone says about every clip of the target, both splits."""
    clips = target.clips
    models = {
        "classifier": evaluate.open_model(out / "source"),
        "student": evaluate.open_model(out / "student"),
        "student int8": evaluate.open_model(out / "bundle", precision="int8"),
    }
    labels = models["student"][0]
    draws = load_draws(out / "draws.db", clips, labels, cache)
    probs: dict[str, Floats] = {}
    with stage("evaluate", len(models) * len(clips)) as tick:
        for who, (_, model) in models.items():
            probs[who] = evaluate.predict(model, _ticking(clips, tick), cache)
    device = models["student int8"][1]
    if isinstance(device, evaluate.Device) and any(clip.speaker for clip in clips):
        probs[KNOWN] = evaluate.predict_known(device, clips, cache)
    average = fuse(draws, probs["classifier"][None], weighting="uniform").probs
    ordered = {"classifier": probs.pop("classifier"), "LALM": draws.mean(axis=0), "average": average, **probs}
    found = Predictions(labels, tuple(clip.key for clip in clips), ordered)
    return _with_fusion(found, out / "student" / "predictions.csv")


def _ticking(clips: Sequence[Clip], tick: Tick) -> Iterator[Clip]:
    for clip in clips:
        yield clip
        tick(1)


def _with_fusion(predictions: Predictions, adapted: Path) -> Predictions:
    """The predictions with the fusion weights that the adaptation noted for its clips."""
    noted = read_predictions(adapted, predictions.labels)
    at = {name: row for row, name in enumerate(noted.keys)}
    rows = [at.get(name, -1) for name in predictions.keys]
    measures = {name: np.append(values, np.nan)[rows] for name, values in noted.measures.items()}
    return replace(predictions, measures=measures)


def _rows(predictions: Predictions, target: Manifest, out: Path, times: Sequence[Latency]) -> list[Row]:
    latency = {row.precision: row for row in times}
    files = {
        "classifier": out / "source" / "model.safetensors",
        "student": out / "bundle" / "model.onnx",
        "student int8": out / "bundle" / "model.int8.onnx",
    }
    rows = []
    for who, probs in predictions.probs.items():
        adapt, test = (_ua(target.clips, probs, predictions.labels, split) for split in ("adapt", "test"))
        size = files[who].stat().st_size / 1000 if who in files else None
        timed = latency.get({"student": "fp32", "student int8": "int8"}.get(who, ""))
        p50, p90 = (timed.p50, timed.p90) if timed else (None, None)
        rows.append(Row(who, adapt, test, size, p50, p90))
    return rows


def _ua(clips: Sequence[Clip], probs: Floats, labels: Sequence[str], split: str) -> float | None:
    rows = [row for row, clip in enumerate(clips) if clip.label and (clip.split or "adapt") == split]
    if not rows:
        return None
    truth = np.array([labels.index(str(clips[row].label)) for row in rows])
    return unweighted_accuracy(truth, probs[rows].argmax(axis=1), len(labels))


def _record(
    inputs: Inputs, out: Path, config: DemoConfig, predictions: Predictions, rows: Sequence[Row]
) -> None:
    """run.json and predictions.csv of the whole, for the report."""
    adapted: Mapping[str, Any] = json.loads((out / "student" / "run.json").read_text(encoding="utf-8"))
    where = machine()
    run = {
        "kind": "demo",
        "labels": predictions.labels,
        "lalm": inputs.lalm,
        "notes": inputs.notes,
        "rows": [table_row(row, inputs.lalm) for row in rows],
        "config": {"demo": asdict(config), "adapt": adapted.get("config")},
        "history": adapted.get("history"),
        "fusion": adapted.get("fusion"),
        "verdict": adapted.get("verdict"),
        "target": str(inputs.target.resolve()),
        "versions": {"cpu": where.cpu, "cores": where.cores, **where.versions},
    }
    write_predictions(out / "predictions.csv", predictions)
    with whole_file(out / "run.json") as partial:
        partial.write_text(json.dumps(run, indent=2), encoding="utf-8")


def table_row(row: Row, lalm: str) -> dict[str, str]:
    """Column -> text of a line of the table.

    >>> list(table_row(Row("LALM", 50.04, None), "stand-in LALM").values())
    ['stand-in LALM', 'paid service', '50.0', '–', '–', '–', '–']
    """

    def text(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    return {
        "": lalm if row.name == "LALM" else row.name,
        "runs on": RUNS.get(row.name, "device"),
        "UA adapt %": text(row.ua_adapt, 1),
        "UA test %": text(row.ua_test, 1),
        "size kB": text(row.size_kb, 0),
        "p50 ms": text(row.p50_ms, 2),
        "p90 ms": text(row.p90_ms, 2),
    }
