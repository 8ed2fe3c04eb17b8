"""Bundles of somebody who means harm, hashes and all: one clear line, and no engine has seen them."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mifuse_runtime import AudioError, BundleError, MifuseError, Recognizer, engines
from mifuse_runtime import bundle as bundles
from mifuse_runtime.graph import ceilings, cost, onnx_network, onnx_problem, openvino_problem, usual
from mifuse_runtime.settings import FrontEnd
from tests.bundles import body, graph, make_bundle, tone
from tests.test_runtime_graph import rehash


def varint(number: int, needless: int = 0) -> bytes:
    """A number as protobuf writes it, and with bytes more than it needs."""
    groups = [number >> shift & 127 for shift in range(0, max(1, number.bit_length()), 7)] + [0] * needless
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def field(number: int, content: bytes, tag: bytes | None = None) -> bytes:
    return (varint(number << 3 | 2) if tag is None else tag) + varint(len(content)) + content


HIGH_BITS = bytes([4 << 3 | 2 | 128, 128, 128, 128, 16])  # field 4 to who drops what is above 32 bits


@pytest.mark.parametrize(
    ("hidden", "word"),
    [
        (field(4, b"Loop", HIGH_BITS), "a key is longer than 32 bits"),
        (field(4, b"Loop", varint(4 << 3 | 2, needless=1)), "needless bytes"),
        (field(4, b"Loop"), "'op_type' comes twice"),
        (varint(4 << 3) + varint(7), "'op_type' is written in another way"),
        (field(99, b"x"), "number 99 is none"),
        (field(8, b"overload"), "number 8 is none"),
        (field(5, field(1, b"body") + field(6, b"") + varint(20 << 3) + varint(5)), "it holds subgraphs"),
        (
            field(5, field(1, b"axis") + varint(3 << 3) + varint(1) + varint(20 << 3) + varint(7)),
            "holds ['i'",
        ),
        (field(1, b"samples") + b"\x0a\x7f", "longer than its message"),
    ],
)
def test_nodes_that_read_in_two_ways(hidden: bytes, word: str) -> None:
    node = field(1, b"samples") + field(2, b"y") + field(4, b"Abs")
    rest = onnx.load_from_string(graph()).SerializeToString()
    assert onnx_problem(rest) is None
    problem = onnx_problem(rest + field(7, field(1, node + hidden)))
    assert problem and "'graph' comes twice" in problem  # protobuf would join the two
    alone = onnx.load_from_string(graph())
    alone.graph.ClearField("node")
    whole = alone.graph.SerializeToString() + field(1, node + hidden)
    problem = onnx_problem(varint(1 << 3) + varint(9) + field(7, whole) + field(8, b"\x10\x12"))
    assert problem and word in problem and "\n" not in problem


def test_a_node_that_gives_nothing() -> None:
    silent = onnx.load_from_string(graph())
    silent.graph.node.append(helper.make_node("Abs", ["samples"], []))
    assert onnx_problem(silent.SerializeToString()) == "Abs gives nothing"


def test_a_file_that_is_onnx_and_ort() -> None:
    """ONNX Runtime takes a file with these letters for its own format, which no list of operators is for."""
    polyglot = field(2, b"\0\0ORTM" + b"x" * 90)
    assert polyglot[4:8] == b"ORTM"
    assert onnx_problem(polyglot + graph()) == "it is an ORT file"


def made(nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None) -> bytes:
    """A body: mel power (batch, frames, mels) -> probabilities (batch, 4)."""
    value = helper.make_tensor_value_info
    mels = FrontEnd().mels
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "hostile",
            [value("power", TensorProto.FLOAT, ["batch", "frames", mels])],
            [value("probs", TensorProto.FLOAT, ["batch", 4])],
            [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return model.SerializeToString()


def doubled(times: int) -> bytes:
    node = helper.make_node
    nodes = [node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=1) for i in range(times)]
    nodes[0].input[:] = ["power", "power"]
    nodes += [node("ReduceMean", [f"x{times}", "both"], ["m"], keepdims=0)]
    nodes += [node("Slice", ["m", "zero", "four", "one"], ["probs"])]
    numbers = {"both": [1], "zero": [0], "four": [4], "one": [1]}
    return made(nodes, {name: np.array(value, np.int64) for name, value in numbers.items()})


def squared(times: int) -> bytes:
    node = helper.make_node
    nodes = [node("Transpose", ["power"], ["turned"], perm=[0, 2, 1])]
    nodes += [node("MatMul", ["power", "turned"], ["x0"])]
    nodes += [node("MatMul", [f"x{i}", f"x{i}"], [f"x{i + 1}"]) for i in range(times)]
    nodes += [node("ReduceMean", [f"x{times}", "one"], ["m"], keepdims=0)]
    nodes += [node("Slice", ["m", "zero", "four", "one"], ["probs"])]
    numbers = {"zero": [0], "four": [4], "one": [1]}
    return made(nodes, {name: np.array(value, np.int64) for name, value in numbers.items()})


def padded(by: int) -> bytes:
    node = helper.make_node
    nodes = [node("Pad", ["power", "pads"], ["x"]), node("ReduceMean", ["x", "one"], ["m"], keepdims=0)]
    nodes += [node("Slice", ["m", "zero", "four", "one"], ["probs"])]
    numbers = {"pads": [0, 0, 0, 0, by, 0], "zero": [0], "four": [4], "one": [1]}
    return made(nodes, {name: np.array(value, np.int64) for name, value in numbers.items()})


def of_the_audio() -> bytes:
    """A shape that nobody knows before the audio is there."""
    node = helper.make_node
    nodes = [node("ReduceMax", ["power"], ["loudest"], keepdims=0), node("Cast", ["loudest"], ["size"], to=7)]
    nodes += [
        node("Unsqueeze", ["size", "zero"], ["sizes"]),
        node("Concat", ["zeros", "sizes", "ends"], ["p"], axis=0),
    ]
    nodes += [node("Pad", ["power", "p"], ["x"]), node("ReduceMean", ["x", "one"], ["m"], keepdims=0)]
    nodes += [node("Slice", ["m", "zero", "four", "one"], ["probs"])]
    numbers = {"zeros": [0, 0, 0, 0], "ends": [0], "zero": [0], "four": [4], "one": [1]}
    return made(nodes, {name: np.array(value, np.int64) for name, value in numbers.items()})


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "memory": (lambda: doubled(24), "numbers at a time by its node"),
    "time": (lambda: squared(400), "operations by its node"),
    "padding": (lambda: padded(1 << 40), "by its node 1, Pad"),
    "beyond 64 bits": (lambda: doubled(90), "numbers at a time by its node"),
    "the audio decides": (of_the_audio, "depends on the audio"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_small_files_that_take_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: str) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("the engine was asked"))
    make, word = BOMBS[bomb]
    folder = make_bundle(tmp_path, split=True)
    (folder / "body.onnx").write_bytes(make())
    rehash(folder)
    with pytest.raises(BundleError, match=word) as caught:
        Recognizer.load(folder)
    assert "\n" not in str(caught.value)
    assert onnx_problem(doubled(3)) is None and onnx_problem(padded(100)) is None


def test_a_bomb_for_clips_of_one_length(tmp_path: Path) -> None:
    """Every length is looked at, not the longest alone."""
    node = helper.make_node
    nodes = [
        node("Shape", ["power"], ["frames"], start=1, end=2),
        node("Equal", ["frames", "secret"], ["hit"]),
    ]
    nodes += [
        node("Where", ["hit", "huge", "zero"], ["more"]),
        node("Concat", ["zeros", "more", "zero"], ["p"], axis=0),
    ]
    nodes += [node("Pad", ["power", "p"], ["x"]), node("ReduceMean", ["x", "one"], ["m"], keepdims=0)]
    nodes += [node("Slice", ["m", "zero", "four", "one"], ["s"]), node("Softmax", ["s"], ["probs"])]
    numbers = {"secret": [64], "huge": [1 << 33], "zeros": [0] * 4, "zero": [0], "four": [4], "one": [1]}
    folder = make_bundle(tmp_path, split=True)
    content = made(nodes, {name: np.array(value, np.int64) for name, value in numbers.items()})
    (folder / "body.onnx").write_bytes(content)
    rehash(folder)
    recognizer = Recognizer.load(folder)
    assert recognizer.stream(window=1.1).feed(tone(1.1))
    with pytest.raises(BundleError, match="does not take audio of this length"):
        recognizer.stream(window=63 * 256 / 16_000).feed(tone(1.1))


def test_good_models_stay_under_a_tenth() -> None:
    """Ours here; `python -m benchmarks.ceilings` has the large ones."""
    for content in (graph(), body()):
        network = onnx_network(content)
        taken, most = cost(network, usual(network)), ceilings(network)
        assert 10 * taken.work < most.work and 10 * taken.memory < most.memory


def test_what_is_checked_is_what_runs(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    bundle = bundles.load(folder)
    (folder / "model.onnx").write_bytes(graph(scale=0.5))  # another one, after the hashes were compared
    with pytest.raises(BundleError, match="SHA-256 differs"):
        engines.start(folder, bundle, "onnxruntime", None, 1)


def test_openvino_constants_and_namespaces(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    make_bundle(tmp_path, openvino=True)
    xml = (tmp_path / "openvino" / "model.xml").read_text()
    weights = (tmp_path / "openvino" / "model.bin").read_bytes()
    assert openvino_problem(xml.encode(), weights) is None
    second = '</layers><layers><layer id="0" name="a" type="Result" version="opset1"/></layers>'
    hidden = xml.replace("<layers>", '<layers xmlns="x">', 1).replace("</layers>", second, 1)
    assert openvino.Core().read_model(hidden.encode(), weights)  # it reads the first, as if nothing was
    assert openvino_problem(hidden.encode(), weights) == "it holds namespaces"
    assert "two 'layers'" in str(openvino_problem(xml.replace("</layers>", second, 1).encode(), weights))


def head(folder: Path, content: bytes) -> Path:
    """The bundle with this file as its head for known speakers."""
    (folder / "speaker.npy").write_bytes(content)
    said = json.loads((folder / "bundle.json").read_text()) | {"speaker": "speaker.npy"}
    said["files"]["speaker.npy"] = bundles.sha256(folder / "speaker.npy")
    (folder / "bundle.json").write_text(json.dumps(said))
    return folder


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        saved(np.full((4, 9), np.nan, np.float32)),
        saved(np.full((4, 9), np.inf, np.float32)),
        saved(np.zeros((4, 9), np.float32)).replace(b"'fortran_order': False", b"'fortran_order'({False"),
        saved(np.zeros((4, 9), np.float32)).replace(b"(4, 9)", b"(4, 99999)"),
        saved(np.zeros((4, 9), np.float32))[:-1],
        saved(np.zeros((4, 9), np.float64)),
        b"",
        b"\x80\x04pickle",
    ],
)
def test_heads_that_are_none(tmp_path: Path, content: bytes) -> None:
    folder = make_bundle(tmp_path, split=True)
    for name, made_of, value, size in (("model", graph(), "features", 2), ("body", body(), "mean", 64)):
        said = onnx.load_from_string(made_of)
        said.graph.node.append(helper.make_node("Identity", [value], ["embedding"]))
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", size])
        said.graph.output.append(output)
        (folder / f"{name}.onnx").write_bytes(said.SerializeToString())
    rehash(folder)
    assert Recognizer.load(head(folder, saved(np.zeros((4, 193), np.float32)))).speaker()
    with pytest.raises(BundleError, match=r"speaker\.npy is no head for 4 labels") as caught:
        Recognizer.load(head(folder, content))
    assert "\n" not in str(caught.value)


def test_a_front_end_that_does_not_fit(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, split=True)
    said = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(said | {"frontend": {"mels": 40}}))
    with pytest.raises(BundleError, match="64 mel bins, bundle\\.json says 40"):
        Recognizer.load(folder)


def test_an_engine_that_fails_at_work(tmp_path: Path) -> None:
    """Whether an index is in range is known only when it is there."""
    node = helper.make_node
    nodes = [
        node("ReduceMax", ["power"], ["loudest"], keepdims=0),
        node("Cast", ["loudest"], ["index"], to=7),
    ]
    nodes += [node("Add", ["index", "large"], ["far"]), node("Gather", ["power", "far"], ["x"], axis=2)]
    nodes += [node("Concat", ["x", "x", "x", "x"], ["probs"], axis=1)]
    folder = make_bundle(tmp_path, split=True)
    (folder / "body.onnx").write_bytes(made(nodes, {"large": np.array(1 << 20)}))
    rehash(folder)
    with pytest.raises(BundleError, match=r"body\.onnx failed in onnxruntime \(.*: export") as caught:
        Recognizer.load(folder).stream(window=1.0).feed(tone(1.0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factor", [np.nan, -1.0, 3.0, 1e30])
def test_answers_that_are_no_probabilities(tmp_path: Path, factor: float) -> None:
    said = onnx.load_from_string(graph())
    said.graph.node[-1].output[:] = ["plain"]
    said.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), "factor"))
    said.graph.node.append(helper.make_node("Mul", ["plain", "factor"], ["probs"]))
    folder = make_bundle(tmp_path)
    (folder / "model.onnx").write_bytes(said.SerializeToString())
    rehash(folder)
    with pytest.raises(BundleError, match="answer is not probabilities"):
        Recognizer.load(folder).predict(tone(1.0))


@pytest.mark.parametrize("rate", [1j, "16000", None, float("nan"), float("inf"), True, [16_000]])
def test_rates_that_are_none(tmp_path: Path, rate: object) -> None:
    recognizer = Recognizer.load(make_bundle(tmp_path))
    if rate is None:
        assert recognizer.predict(tone(0.5), rate)
        return
    with pytest.raises(AudioError, match="sample rate is"):
        recognizer.predict(tone(0.5), rate)  # type: ignore[arg-type]


def test_two_threads_and_one_stream(tmp_path: Path) -> None:
    recognizer = Recognizer.load(make_bundle(tmp_path, split=True))
    inside, go = threading.Event(), threading.Event()

    def gate(samples: np.ndarray) -> bool:
        inside.set()
        return go.wait(30)

    stream = recognizer.stream(window=0.5, vad=gate)
    first = threading.Thread(target=stream.feed, args=(tone(1.0),))
    first.start()
    assert inside.wait(30)
    for call in (
        lambda: stream.feed(tone(0.1)),
        stream.close,
        lambda: recognizer.feed_all([stream], [tone(0.1)]),
    ):
        with pytest.raises(MifuseError, match="two threads feed one stream"):
            call()
    go.set()
    first.join()
    assert stream.feed(tone(0.5))
