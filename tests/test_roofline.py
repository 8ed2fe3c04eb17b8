"""Operations and bytes of a graph, counted by hand, and a bound that is one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import roofline
from benchmarks.roofline import Ceilings, Part, bound, ceilings, parts


def model() -> onnx.ModelProto:
    """(1, 8) -> one channel of 8 -> 4 channels of 6 by a filter of 3, quantised -> (1, 4, 5)."""
    weights = {
        "filter": np.ones((4, 1, 3), np.float32), "matrix": np.ones((6, 5), np.float32),
        "axes": np.array([1]), "scale": np.float32(1), "zero": np.uint8(0),
    }  # fmt: skip
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["wide"]),
        helper.make_node("QuantizeLinear", ["wide", "scale", "zero"], ["small"]),
        helper.make_node("DequantizeLinear", ["small", "scale", "zero"], ["back"]),
        helper.make_node("Conv", ["back", "filter"], ["found"]),
        helper.make_node("Relu", ["found"], ["above"]),
        helper.make_node("MatMul", ["above", "matrix"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "n"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    given = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_operations_and_bytes() -> None:
    found = parts(model(), np.ones((1, 8), np.float32))
    assert {
        kind: (part.operators, round(part.mmacs * 1e6), round(part.kb * 1000)) for kind, part in found.items()
    } == {
        "Conv, int8": (1, 4 * 6 * 3, 8 + 12 + 24),
        "other, float": (1, 0, 4 * (24 + 24)),
        "MatMul, float": (1, 4 * 5 * 6, 4 * (24 + 30 + 20)),
    }


def test_the_slower_of_operations_and_bytes_binds() -> None:
    found = {
        "Conv, int8": Part(1, 10.0, 1.0),
        "Conv, float": Part(1, 10.0, 1.0),
        "other, float": Part(1, 0.0, 5000.0),
    }
    assert bound(found, Ceilings(10.0, 40.0, 5.0, 1.0)) == pytest.approx(0.25 + 1.0 + 1.0)
    assert [part.bound_ms for part in found.values()] == pytest.approx([0.25, 1.0, 1.0])


def test_ceilings_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "SIZE", 64)
    limits = ceilings(seconds=0.0)
    assert min(limits.float_gmacs, limits.int8_gmacs, limits.cache_gb, limits.fft_us) > 0
