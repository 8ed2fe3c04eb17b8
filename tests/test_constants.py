"""Constants that a graph makes itself: the same bits, on every engine, before the first prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import helper, numpy_helper

from mifuse.models.frontend import LogMel
from mifuse_export.constants import compact
from mifuse_runtime.graph import onnx_problem

MATRICES = {name: tensor.numpy() for name, tensor in LogMel().named_buffers() if tensor.numel() > 4096}


def model_of(matrix: np.ndarray) -> onnx.ModelProto:
    """A product with the matrix, compacted."""
    *leading, rows, columns = matrix.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "frontend.matrix"], ["y"], name="frontend/MatMul")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [*leading, "n", rows])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [*leading, "n", columns])],
        [numpy_helper.from_array(matrix, "frontend.matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    compact(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def made(model: onnx.ModelProto) -> list[np.ndarray]:
    """What each engine makes of the matrix."""
    values = model.graph.output.add()
    values.CopyFrom(helper.make_tensor_value_info("frontend.matrix", onnx.TensorProto.FLOAT, None))
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    x = np.ones([1 if size == "n" else size for size in session.get_inputs()[0].shape], np.float32)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [session.run(["frontend.matrix"], {"x": x})[0], compiled({"x": x})["frontend.matrix"]]


@pytest.mark.parametrize("name", MATRICES)
def test_engines_make_what_torch_holds(name: str) -> None:
    matrix = MATRICES[name]
    model = model_of(matrix)
    assert "frontend.matrix" not in {tensor.name for tensor in model.graph.initializer}
    assert model.ByteSize() < matrix.nbytes / 7
    assert onnx_problem(model.SerializeToString()) is None
    zero = np.abs(matrix) < 1e-12  # torch's float64 cosine of 16,129 * 2π / 256 misses zero by as much
    for found in made(model):
        assert np.array_equal(found, np.where(zero, 0, matrix))


@pytest.mark.parametrize("name", MATRICES)
def test_nothing_of_it_runs_with_the_model(name: str, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    onnxruntime.InferenceSession(
        model_of(MATRICES[name]).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert [node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node] == ["MatMul"]


@pytest.mark.parametrize("period", [400, 640])
def test_dft_of_any_length_that_four_divides(period: int) -> None:
    angle = 2 * np.pi / period * np.arange(period)[:, None] * np.arange(3, 120)
    matrix = np.concatenate([np.cos(angle), -np.sin(angle)], axis=1).astype(np.float32)
    for found in made(model_of(matrix)):
        np.testing.assert_allclose(found, matrix, rtol=0, atol=2.0**-25)


def untouched() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    bent = MATRICES["fine"].copy()
    bent[0, 7, 9] += 1e-6
    holed = MATRICES["filters"].copy()
    holed[100, 0] = holed[100, -1] = 1e-9
    return {
        "weights": rng.standard_normal((128, 128)).astype(np.float32),
        "bent": bent,
        "holed": holed,
        "nan": np.full((128, 128), np.nan, np.float32),
        "zero": np.zeros((128, 128), np.float32),
        "odd": rng.standard_normal((1, 9001)).astype(np.float32),
        "doubles": MATRICES["fine"].astype(np.float64),
        "small": MATRICES["fine"][0].copy(),
    }


@pytest.mark.parametrize("name", untouched())
def test_what_is_neither_stays(name: str) -> None:
    matrix = untouched()[name]
    graph = onnx.GraphProto(initializer=[numpy_helper.from_array(matrix, "w")])
    compact(graph)
    (kept,) = graph.initializer
    assert not graph.node
    assert numpy_helper.to_array(kept).tobytes() == matrix.tobytes()
