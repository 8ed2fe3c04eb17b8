"""The benchmark of transfers: its arithmetic on made-up results, its plan, and one small run."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import table, transfers, units
from benchmarks.baselines import BASELINES
from benchmarks.provenance import code_files
from benchmarks.units import Transfer, Unit, ablations, named
from mifuse.clips.manifest import read_manifest
from mifuse.demo.stand_in import stand_in_lalm
from mifuse.demo.synth import make_domain
from mifuse.fusion.recipes import RECIPES
from mifuse.models.classifier import TrainConfig
from mifuse.models.student import Student

A, B = Transfer(("x",), "y"), Transfer(("y",), "x")


def one_hot(classes: np.ndarray) -> np.ndarray:
    return np.eye(4)[classes]


@pytest.fixture
def results() -> table.Results:
    """400 clips a target: the LALM knows the even classes, the recipe all but one clip in four."""
    truth = np.tile(np.arange(4), 100)
    lalm = np.where(truth % 2 == 0, truth, (truth + 1) % 4)
    student = np.where(np.arange(400) % 16 < 4, (truth + 1) % 4, truth)
    out = table.Results({(t, s): truth for t in "xy" for s in table.SPLITS})
    for transfer in (A, B):
        for method, classes, seeds in (("lalm", lalm, 1), ("default", student, 2), ("oracle", truth, 2)):
            run = {s: one_hot(classes) for s in table.SPLITS} | {"seconds": np.array(1.0)}
            run |= {"lalm": one_hot(lalm), "classifier": one_hot(truth // 2 * 2 + 1)}
            run["lalm_weight"] = (lalm == truth).astype(float)
            out.runs[method, transfer] = dict.fromkeys(range(seeds), run)
    return out


def test_scores(results: table.Results) -> None:
    assert results.uas("lalm", A, "adapt").tolist() == [50.0]
    assert results.recalls("lalm", A, "test")[0].tolist() == [100, 0, 100, 0]
    assert table.means(results, ["default"], [A, B])["default"]["adapt"] == {
        "ua": 75.0,
        "sd": 0.0,
        "seeds": [75.0, 75.0],
    }


def test_clips_without_a_label_do_not_count(results: table.Results) -> None:
    results.truth["y", "adapt"] = np.where(np.arange(400) < 200, -1, results.truth["y", "adapt"])
    assert results.uas("lalm", A, "adapt").tolist() == [50.0]
    assert len(results.hits("lalm", A, "adapt")) == 200


def test_paired_gain(results: table.Results) -> None:
    gain = table.paired_gain(results, "default", "lalm", [A, B], "adapt")
    assert gain["gain"] == pytest.approx(25.0)
    assert 15 < gain["low"] < 25 < gain["high"] < 35
    same = table.paired_gain(results, "lalm", "lalm", [A, B], "adapt")
    assert same == {"gain": 0, "low": 0, "high": 0}


def test_comparisons(results: table.Results) -> None:
    parts = table.comparisons(results, "default", ["lalm", "default", "oracle"], [A, B])
    assert parts["test"]["share of the way from LALM to oracle, %"] == pytest.approx(50.0)
    assert parts["adapt"]["transfers below the LALM"] == []
    assert parts["adapt"]["over the best baseline"]["name"] == "lalm"
    assert parts["AUC of the trust weight"]["mean"] == 1.0
    assert table.comparisons(results, "paper", ["lalm"], [A]) == {}
    assert len(table.comparison_lines(parts)) == 13


def test_exchanged_labels_of_a_target_are_reported(results: table.Results) -> None:
    swapped = next(t for t in (A, B) if t.target == "y")
    truth = results.truth["y", "adapt"]
    # 80 % of the angry clips are called happy, and of the happy ones angry.
    answered = np.where((truth < 2) & (np.arange(400) % 20 < 16), 1 - truth, truth)
    run = results.runs["default", swapped][0]
    results.runs["default", swapped] = {0: run | {s: one_hot(answered) for s in table.SPLITS}}
    parts = table.comparisons(results, "default", ["lalm", "default", "oracle"], [A, B])
    assert parts["labels that look exchanged"] == {str(swapped): ["angry", "happy"]}
    line = f"labels of the target that look exchanged, by {swapped}: angry and happy"
    assert line in table.comparison_lines(parts)


def test_auc() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.random(2000), rng.random(2000) < 0.3
    assert table.auc(scores, positive) == pytest.approx(0.5, abs=0.05)
    assert table.auc(scores + positive, positive) == 1.0
    assert np.isnan(table.auc(scores, np.zeros(2000, dtype=bool)))


def test_transfers_are_parsed() -> None:
    assert str(Transfer.parse("a+b>c")) == "a+b>c"
    with pytest.raises(ValueError, match="SOURCE>TARGET"):
        Transfer.parse("a-b")


def test_ablations_change_something() -> None:
    base = RECIPES["default"]
    methods = ablations(base)
    assert len({method.name for method in methods}) == len(methods) > 8
    assert all(method.config != base or method.draws for method in methods)
    assert ablations(named("default", ["refresh=0"]).config)[0].name == "no MI"


def test_what_only_the_recipe_uses_leaves_baselines_as_they_are(tmp_path: Path) -> None:
    assert named("lalm-only", ["refine.prior=0.9"]) == named("lalm-only", [])
    assert named("lalm-only", ["fit.steps=5"]) != named("lalm-only", [])
    with pytest.raises(KeyError):
        named("nothing", [])


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny synthetic corpora in the layout of the benchmark."""
    folder = tmp_path_factory.mktemp("corpora")
    for name in ("studio", "phone"):
        manifest = make_domain(
            folder / name, name, speakers=2, clips_per_speaker=4, test_speakers=1, seconds=0.6
        )
        stand_in_lalm(read_manifest(manifest), folder / name / "lalm_draws.jsonl", draws=3)
        shutil.copy(manifest, folder / name / "source.csv")
        manifest.rename(folder / name / "target.csv")
    return folder


TINY_RECIPE = ["fit.steps=1", "fit.batch_size=4", "size=xs"]
TINY = [part for setting in TINY_RECIPE for part in ("--set", setting)] + ["--set-classifier", "size=xs"]
TINY += ["--set-classifier", "fit.steps=1", "--set-classifier", "fit.batch_size=4", "--seeds", "1"]


def test_a_small_run_is_resumed(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transfers, "workers", lambda jobs: ThreadPoolExecutor(1))
    ran: list[str] = []
    run = units.run
    monkeypatch.setattr(units, "run", lambda unit: ran.append(str(unit)) or run(unit))
    out, work = tmp_path / "out" / "t.json", tmp_path / "work"
    options = ["--corpora", str(corpora), "--transfers", "studio>phone", "--work", str(work), *TINY]
    options += ["--methods", "lalm,average,lalm-only,default,oracle", "--out", str(out)]
    assert transfers.main([*options, "--pictures", str(tmp_path)]) == 0
    document = json.loads(out.read_text())
    assert set(document["mean"]) == {"lalm", "average", "lalm-only", "default", "default int8", "oracle"}
    assert document["settings"]["seeds"] == 1
    assert list(document["hardware"].values()) == [6]  # every result, all made here
    assert {f.name for f in tmp_path.glob("*.svg")} == {
        "transfers-adapt.svg",
        "transfers-test.svg",
        "transfers-known.svg",
        "trust.svg",
    }
    printed = capsys.readouterr().out
    assert "stand-in LALM" in printed
    assert "| LALM-only distillation | LALM | fits the LALM's mean draw" in printed
    assert len(ran) == 7
    ran.clear()
    next(work.rglob("oracle-0-*.npz")).unlink()
    assert transfers.main(options) == 0
    assert ran == ["studio>phone oracle seed 0"]


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_read_no_label(corpora: Path, tmp_path: Path, name: str) -> None:
    hidden = tmp_path / "corpora"
    shutil.copytree(corpora, hidden, ignore=shutil.ignore_patterns("*.npz"))
    target = hidden / "phone" / "target.csv"
    header, *rows = list(csv.reader(target.open(encoding="utf-8")))
    label = header.index("label")
    assert all(row[label] for row in rows)
    rows = [[*row[:label], "", *row[label + 1 :]] for row in rows]
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    torch.manual_seed(0)
    model = Student(size="xs")
    seen = []
    for folder in (corpora, hidden):
        unit = Unit(
            folder,
            tmp_path / folder.parent.name,
            Transfer(("studio",), "phone"),
            0,
            TrainConfig(),
            named(name, TINY_RECIPE),
        )
        model.save_pretrained(unit.classifier)
        units.run(unit)
        with np.load(unit.file) as file:
            seen.append(file["test"])
    assert np.array_equal(*seen)


@pytest.mark.parametrize("name", ["classifier", "nrc", "default int8"])
def test_a_stored_result_is_of_the_code_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpora: Path, name: str
) -> None:
    unit = Unit(corpora, tmp_path, Transfer(("studio",), "phone"), 0, TrainConfig(), named(name, []))
    before, names = unit.file, {file.name for file in code_files()}
    assert {"nrc.py", "quantize.py", "recognizer.py", "training.py", "units.py"} <= names
    for file in code_files()[::9]:
        with monkeypatch.context() as patch:
            patch.setitem(units.hashes, file, "edited")
            assert unit.file != before
            assert unit.classifier != replace(unit, seed=1).classifier


def test_failures_are_named(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transfers, "workers", lambda jobs: ThreadPoolExecutor(1))
    options = ["--corpora", str(corpora), "--transfers", "studio>phone", "--work", str(tmp_path), *TINY]
    assert transfers.main([*options, "--methods", "lalm,default", "--set", "weighting=none"]) == 1
    assert "failed: studio>phone default seed 0" in capsys.readouterr().err
    assert transfers.main([*options, "--methods", "lalmo"]) == 1
    assert "no method 'lalmo'" in capsys.readouterr().err
    assert transfers.main(["--corpora", str(tmp_path)]) == 1
    assert "0 corpora" in capsys.readouterr().err
