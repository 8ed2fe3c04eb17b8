"""Calibration: ranges by share of a clip, biases that keep the means of float, the better ranges chosen."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mifuse_export import ExportError
from mifuse_export.calibration import TAILS, calibrate, corrected, means, observe
from mifuse_export.quantize import activations, layers, quantize

RNG = np.random.default_rng(0)
CLIPS = [(0.1 * RNG.standard_normal(n)).astype(np.float32) for n in (800, 900, 1600, 2000)]


def model(bias: bool = True) -> onnx.ModelProto:
    """Two convolutions with ReLUs, a mean over time and a head."""
    rng = np.random.default_rng(1)
    tensors = {
        "axes": np.array([1], np.int64),
        "time": np.array([2], np.int64),
        "w1": rng.standard_normal((8, 1, 16)).astype(np.float32),
        "b1": rng.uniform(0.1, 0.5, 8).astype(np.float32),
        "w2": rng.standard_normal((8, 8, 3)).astype(np.float32),
        "b2": rng.uniform(0.1, 0.5, 8).astype(np.float32),
        "w3": rng.standard_normal((8, 2)).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["samples", "axes"], ["x"], name="unsqueeze"),
        node("Conv", ["x", "w1", *(["b1"] if bias else [])], ["c1"], name="conv1", strides=[8]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2", *(["b2"] if bias else [])], ["c2"], name="conv2"),
        node("Relu", ["c2"], ["r2"], name="relu2"),
        node("ReduceMean", ["r2", "time"], ["m"], name="mean", keepdims=0),
        node("MatMul", ["m", "w3"], ["scores"], name="head"),
        node("Softmax", ["scores"], ["probs"], name="softmax", axis=1),
    ]
    value = helper.make_tensor_value_info
    content = helper.make_graph(
        nodes,
        "tiny",
        [value("samples", TensorProto.FLOAT, ["batch", "samples"])],
        [value("probs", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(graph: onnx.ModelProto, clip: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probs"], {"samples": clip[None]})[0]


def test_ranges_hold_a_share_of_every_clip() -> None:
    graph = model()
    assert activations(graph) == ["x", "c1", "r1", "c2", "r2"]
    assert layers(graph) == ["conv1", "conv2"]
    found = observe(graph, ["x"], CLIPS)
    assert list(found) == list(TAILS)
    everything = np.concatenate(CLIPS)
    assert found["min-max"]["x"] == pytest.approx((everything.min(), everything.max()))
    for tail, share in TAILS.items():
        low, high = found[tail]["x"]
        ends = [np.quantile(clip, [share, 1 - share]) for clip in CLIPS]
        assert low == pytest.approx(min(end[0] for end in ends))
        assert high == pytest.approx(max(end[1] for end in ends))


def test_corrected_biases_keep_the_means_of_float() -> None:
    graph = model()
    before = graph.SerializeToString()
    ranges = observe(graph, activations(graph), CLIPS)["min-max"]
    names = ["conv1", "conv2"]
    expected = means(graph, names, CLIPS)
    plain, mended = (
        means(int8, names, CLIPS)
        for int8 in (quantize(graph, ranges), corrected(graph, ranges, expected, CLIPS))
    )
    for name in names:
        off, left = (np.abs(found[name] - expected[name]).max() for found in (plain, mended))
        assert left < off / 3
    assert graph.SerializeToString() == before


def test_the_nearest_ranges_are_taken() -> None:
    found = calibrate(model(), CLIPS)
    assert found.method == min(found.tried, key=lambda method: found.tried[method])
    assert found.tried.keys() == TAILS.keys()
    assert len(found.clips) == 2  # the others judged
    for clip in CLIPS:
        assert np.abs(run(found.int8(), clip) - run(found.model, clip)).max() < 0.05
    kinds = {tensor.name for tensor in found.int8(["conv1"]).graph.initializer}
    assert {"w1", "w2_quantized"} <= kinds


def test_without_biases_and_with_one_clip() -> None:
    found = calibrate(model(bias=False), CLIPS[:1])
    assert np.abs(run(found.int8(), CLIPS[0]) - run(found.model, CLIPS[0])).max() < 0.05


def test_nothing_to_quantise_is_an_error() -> None:
    graph = model()
    nodes = [
        helper.make_node("ReduceMean", ["samples", "axes"], ["m"], name="mean"),
        helper.make_node("Concat", ["m", "m"], ["c"], name="concat", axis=1),
        helper.make_node("Softmax", ["c"], ["probs"], name="softmax"),
    ]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    with pytest.raises(ExportError, match="no convolution after its front end"):
        calibrate(graph, CLIPS)
