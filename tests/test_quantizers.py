"""`benchmarks.quantizers`: NNCF quantises the layers that it must, and those it may."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch

from benchmarks.quantizers import accuracy_control, as_it_comes, same_layers, show
from mifuse.models.student import Student
from mifuse_export.onnx import frozen, write_onnx
from mifuse_export.quantize import body


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    student, file = Student(size="w1"), tmp_path_factory.mktemp("nncf") / "model.onnx"
    write_onnx(frozen(student), file, labels=student.labels, sample_rate=16_000)
    return file


def layers(model: openvino.Model) -> int:
    """Weights in 8 bits."""
    constants = [op for op in model.get_ordered_ops() if op.get_type_name() == "Constant"]
    return sum(op.get_element_type() == openvino.Type.i8 for op in constants)


def test_it_quantises_what_it_must(graph: Path) -> None:
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (8000, 9000, 12_000)]
    chosen = body(onnx.load(graph))
    convs = [name for name in chosen if "Conv" in name]
    assert layers(same_layers(chosen)(openvino.convert_model(graph), clips)) == len(convs) == 4
    # The first convolution and the head, too.
    assert layers(as_it_comes(openvino.convert_model(graph), clips)) == 6
    kept = accuracy_control(openvino.convert_model(graph), clips)
    fp32 = openvino.compile_model(openvino.convert_model(graph), "CPU")
    int8 = openvino.compile_model(kept, "CPU")
    assert all(int8(clip[None])[0].argmax() == fp32(clip[None])[0].argmax() for clip in clips)


def test_the_mean_of_the_students_is_printed(capsys: pytest.CaptureFixture) -> None:
    found = {
        "drop": 0.5,
        "agreement": 99.0,
        "mean_abs_dp": 0.002,
        "max_abs_dp": 0.03,
        "speed": 1.3,
        "kb": 126.0,
    }
    show({"a>b": {"from QDQ": found}, "b>a": {"from QDQ": found | {"drop": -0.1}}})
    assert "| **mean** | from QDQ | 0.20 | 99.0 % | 0.0020 | 0.030 | 1.30 | 126 |" in capsys.readouterr().out
