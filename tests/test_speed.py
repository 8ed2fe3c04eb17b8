"""The speed gate: who is faster, and which graphs only look like int8."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mifuse_export import speed
from mifuse_export.calibration import calibrate
from mifuse_export.speed import Kernels, Speed, compare_speed, kernels, verdict

SAMPLES = (0.1 * np.random.default_rng(0).standard_normal((1, 4000))).astype(np.float32)


def graph(path: Path, weight_only: bool = False) -> Path:
    """Write an ONNX file: two convolutions and a dense layer, float, or 8-bit weights in a float graph."""
    rng = np.random.default_rng(0)
    tensors = {
        "axis": np.array([1]),
        "end": np.array([2]),
        "first": rng.standard_normal((16, 1, 16)).astype(np.float32),
        "second": rng.standard_normal((16, 16, 8)).astype(np.float32),
        "dense": rng.standard_normal((16, 2)).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["samples", "axis"], ["x"], name="/Unsqueeze"),
        node("Conv", ["x", "first"], ["a"], name="one/Conv", strides=[4]),
        node("Relu", ["a"], ["b"], name="one/Relu"),
        node("Conv", ["b", "second"], ["c"], name="two/Conv", strides=[4]),
        node("ReduceMean", ["c", "end"], ["d"], name="/ReduceMean", keepdims=0),
        node("MatMul", ["d", "dense"], ["e"], name="head/MatMul"),
        node("Softmax", ["e"], ["probs"], name="/Softmax"),
    ]
    if weight_only:
        for name in ("first", "second"):
            scale = np.abs(tensors[name]).max() / 127
            tensors[f"{name}_8"] = np.rint(tensors.pop(name) / scale).astype(np.int8)
            tensors[f"{name}_scale"] = np.float32(scale)
            nodes.insert(
                0, node("DequantizeLinear", [f"{name}_8", f"{name}_scale"], [name], name=f"{name}/DQ")
            )
    value = helper.make_tensor_value_info
    content = helper.make_graph(
        nodes,
        "tiny",
        [value("samples", TensorProto.FLOAT, ["batch", "samples"])],
        [value("probs", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    model = helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def test_the_profiler_finds_out_what_is_not_int8(tmp_path: Path) -> None:
    source = graph(tmp_path / "fp32.onnx")
    onnx.save(calibrate(onnx.load(source), [SAMPLES[0]]).int8(), tmp_path / "int8.onnx")
    real = kernels(tmp_path / "int8.onnx", SAMPLES)
    assert real.layers == 2
    assert 0 < real.share <= real.body_share <= 1
    assert kernels(source, SAMPLES) == Kernels(0, 0.0, 0.0)
    assert kernels(graph(tmp_path / "weights.onnx", weight_only=True), SAMPLES) == Kernels(0, 0.0, 0.0)


def test_models_take_turns() -> None:
    seen: list[str] = []

    def call(name: str, seconds: float) -> speed.Predict:
        def predict(samples: np.ndarray) -> np.ndarray:
            seen.append(name)
            time.sleep(seconds)
            return samples

        return predict

    spent = speed.times([call("a", 0), call("b", 0.005)], SAMPLES, rounds=2, repeats=3)
    assert spent.shape == (2, 2, 3)
    assert "".join(seen) == "aaaaabbbbb" * 2  # two of five calls are not timed
    assert (spent[1] >= 0.005).all()
    found = compare_speed(call("a", 0.002), call("b", 0), SAMPLES)
    assert found.ratio > 1.5
    assert found.fp32_ms > 2 > found.int8_ms


@pytest.mark.parametrize(
    ("ratio", "layers", "says"),
    [
        (1.01, 5, None),
        (0.96, 5, None),  # near a tie: int8, which is smaller
        (0.95, 5, "int8 is slower than fp32 here: 0.5 ms, fp32 0.4 ms"),
        (float("nan"), 5, "int8 is slower"),
        (9.0, 4, "only 4 of 5 8-bit layers run in integer kernels"),
    ],
)
def test_verdict(ratio: float, layers: int, says: str | None) -> None:
    found = verdict(Speed(0.4, 0.5, ratio), Kernels(layers, 0.3, 0.6), 5)
    assert (found or "").startswith(says or "")
    assert (found is None) == (says is None)
