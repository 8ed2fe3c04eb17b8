"""`benchmarks.export`: the front end alone is the student's, missed goals are printed, students are found."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.export import ENGINES, GOALS, dense_front_end, front_end, show, students, summary
from mifuse.errors import MifuseError
from mifuse.models.student import Student
from mifuse_export.onnx import frozen, write_onnx
from mifuse_runtime import engines

FOUND = {
    "drop": 0.1,
    "test_drop": 0.0,
    "agreement": 99.0,
    "speed": 1.5,
    "body_speed": 2.0,
    "front_share": 30.0,
    "p50_ms": 0.5,
}


def row(name: str, **changes: float) -> dict:
    found = FOUND | {"ua": 60.0} | changes
    kb = {"model.int8.onnx": 145.0, "openvino/model.int8.bin": 128.0}
    rest = {"export_s": 20.0, "export_cpu_s": 9.0, "floats": [], "refused": None, "kb": kb}
    ways = ("fp32 alone", "int8 alone", "fp32 known", "int8 known", "agreement")
    rest["speakers"] = dict.fromkeys(ways, 60.0)
    return {"student": name, **rest, **dict.fromkeys(ENGINES, found)}


def test_the_front_end_alone_makes_the_students_features(tmp_path: Path) -> None:
    student = Student(size="xs").eval()
    write_onnx(frozen(student), tmp_path / "student.onnx", labels=student.labels, sample_rate=16_000)
    front = front_end(tmp_path, tmp_path / "student.onnx")
    samples = 0.1 * np.random.default_rng(0).standard_normal((1, 9000)).astype(np.float32)
    expected = student.features(torch.from_numpy(samples))[0].detach().numpy()
    for engine in ENGINES:
        found = engines.start(tmp_path, front, engine, "fp32", 1)(samples)
        assert np.abs(found.reshape(expected.shape) - expected).max() < 1e-3


def test_a_dense_dft_gives_the_same_features(tmp_path: Path) -> None:
    dense = dense_front_end(tmp_path / "dense")
    samples = 0.1 * np.random.default_rng(0).standard_normal((1, 9000)).astype(np.float32)
    expected = Student(size="xs").features(torch.from_numpy(samples))[0].numpy()
    for engine in ENGINES:
        found = engines.start(tmp_path / "dense", dense, engine, "fp32", 1)(samples)
        assert np.abs(found.reshape(expected.shape) - expected).max() < 1e-3


def test_missed_goals_are_printed(capsys: pytest.CaptureFixture) -> None:
    good, bad = row("a>b"), row("b>a", drop=1.2, speed=1.1) | {"refused": "int8 loses too much"}
    reached = summary([good], xs=58.0)
    assert list(reached) == list(GOALS)
    show([good], reached)
    assert "missed" not in capsys.readouterr().out
    show([good, bad], summary([good, bad], xs=58.0))
    out = capsys.readouterr().out
    assert "| UA drop, mean | 0.65 points | ≤ 0.3 points | missed |" in out
    assert "| speed openvino, worst | 1.10 x | ≥ 1.3 x | missed |" in out
    assert out.count("missed |") == 4
    assert "b>a: the gate let nothing through: int8 loses too much" in out


def test_students_by_transfer_and_seed(tmp_path: Path) -> None:
    for corpus in ("one", "two"):
        (tmp_path / corpus).mkdir()
        for name in ("source.csv", "target.csv", "lalm_draws.jsonl"):
            (tmp_path / corpus / name).write_text(corpus)
    options = argparse.Namespace(
        corpora=tmp_path, work=tmp_path / "work", transfers="one>two", seeds=1, newest=False
    )
    with pytest.raises(MifuseError, match=r"one>two seed 0 has no student .*: run benchmarks\.transfers"):
        students(options)
    (tmp_path / "work" / "one-two" / "default-0-abc.student").mkdir(parents=True)
    options.newest = True
    ((name, (student, target)),) = students(options).items()
    assert (name, student.name) == ("one>two seed 0", "default-0-abc.student")
    assert target == tmp_path / "two" / "target.csv"
