"""`mifuse verify`: every model of a bundle against its student; a difference is exit code 1."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.models.student import Student
from mifuse_export import Probe
from mifuse_export import verify as audit_module
from mifuse_export.verify import verify_models
from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines
from tests.bundles import LABELS, RATE, make_bundle
from tests.test_runtime_graph import rehash


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def loudness_mirrored(folder: Path) -> None:
    """Turn the answers of the int8 model upside down, and vouch for the file."""
    model = onnx.load(folder / "model.int8.onnx")
    matrix = next(t for t in model.graph.initializer if tuple(t.dims) == (2, len(LABELS)))
    values = -onnx.numpy_helper.to_array(matrix)
    matrix.CopyFrom(onnx.numpy_helper.from_array(values, matrix.name))
    onnx.save(model, folder / "model.int8.onnx")
    rehash(folder)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for i in range(8):
        samples = 0.05 * (i + 1) * rng.standard_normal(RATE // 2)
        soundfile.write(tmp_path / f"{i}.wav", samples, RATE)
        lines.append(f"{i}.wav,{LABELS[i % 4]},{'adapt' if i < 2 else 'test'}")
    (tmp_path / "target.csv").write_text("\n".join(lines))
    return tmp_path / "target.csv"


def test_every_model_against_the_bundles_own_float_one(tmp_path: Path, manifest: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", precisions=("fp32", "int8"), openvino=True)
    result = run(folder, manifest, "--max-drop", 20)
    assert result.exit_code == 0, result.output
    head, _, *lines = result.stdout.splitlines()
    assert head.endswith("model.onnx")
    assert [line.split()[:2] for line in lines] == [
        [precision, engine] for precision in ("fp32", "int8") for engine in ("onnxruntime", "openvino")
    ]
    assert all(line.endswith("ok") for line in lines)
    found = json.loads(run(folder, "--json").stdout)["models"]
    assert [model["clips"] for model in found] == [None] * 4
    assert found[0]["signals"]["60 s"] == 0
    assert 0 < max(found[2]["signals"].values()) < 0.2
    assert {"silence", "clicks", "full scale", "0.1 s", "60 s", "batch of 32"} <= found[2]["signals"].keys()


def test_a_model_that_differs_is_exit_code_1(tmp_path: Path, manifest: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", precisions=("fp32", "int8"))
    loudness_mirrored(folder)
    result = run(folder, manifest)
    assert result.exit_code == 1
    assert "1 of 2 models differ too much, int8 on onnxruntime first: |Δp|" in result.stderr
    assert "is allowed; export again" in result.stderr.splitlines()[-1]
    found = json.loads(run(folder, manifest, "--json").stdout)["models"]
    assert [bool(model["failure"]) for model in found] == [False, True]
    assert found[0]["clips"]["clips"] == 6  # labelled rows off the adapt split
    assert found[1]["clips"]["agreement"] < 100


def test_real_clips_judge_what_signals_let_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_bundle(tmp_path, precisions=("fp32", "int8"))
    loudness_mirrored(folder)
    content = bundles.load(folder)
    reference = engines.start(folder, content, "onnxruntime", "fp32", threads=1)
    probe = Probe([np.full(RATE // 2, level, np.float32) for level in (0.01, 0.1, 0.3)])
    monkeypatch.setattr(audit_module, "EDGES", {"fp32": 1.0, "int8": 1.0})
    fp32, int8 = verify_models(folder, content, reference, probe)
    assert fp32.failure is None
    assert "of 3 clips differently than fp32" in str(int8.failure)
    _, without_clips = verify_models(folder, content, reference)
    assert without_clips.failure is None


def test_a_float_model_that_is_not_the_students(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    torch.manual_seed(0)
    Student(LABELS, size="xs").save_pretrained(tmp_path / "student")
    result = run(folder, "--student", tmp_path / "student")
    assert result.exit_code == 1
    assert "fp32 on onnxruntime first: |Δp|" in result.stderr
    assert "0.0001 is allowed" in result.stderr
    Student(("a", "b"), size="xs").save_pretrained(tmp_path / "other")
    result = run(folder, "--student", tmp_path / "other")
    assert result.exit_code == 1
    assert result.output.strip().endswith("this is not the bundle's student")


def test_an_engine_that_is_not_here_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_bundle(tmp_path, openvino=True)
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else there(name))
    result = run(folder)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].endswith("openvino is not installed: pip install 'mifuse[export]'")


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    for arguments, word in (
        ((tmp_path,), "is not a bundle"),
        ((folder, tmp_path / "no.csv"), "no such manifest"),
        ((folder, "--student", tmp_path), "no config.json there"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert word in result.output
        assert len(result.output.strip().splitlines()) == 1
