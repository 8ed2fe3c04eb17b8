"""Model files that are changed at random, and what other readers of ONNX and OpenVINO make of them."""

from __future__ import annotations

import functools
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mifuse_runtime import graph
from mifuse_runtime.shapes import GraphError
from tests.bundles import body
from tests.bundles import graph as whole

MEASURE = 200  # of the accepted models, one in so many is run
RATE = 16_000


def changed(seed: bytes, chance: random.Random) -> bytes:
    """A model with some bytes flipped, cut, repeated, or with a field that readers may take in two ways."""
    content = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content))
        kind = chance.randrange(7)
        if kind == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[at] = chance.choice((0, 1, 2, 8, 10, 18, 34, 127, 128, 255))
        elif kind == 2:
            del content[at : at + chance.randint(1, 9)]
        elif kind == 3:
            part = content[at : at + chance.randint(1, 60)]
            content[at:at] = part
        elif kind == 4:
            content[at:at] = field(chance)
        elif kind == 5:
            content += field(chance)
        else:
            other = chance.randrange(len(content))
            size = chance.randint(1, 40)
            content[at : at + size] = content[other : other + size]
        if not content:
            content = bytearray(b"\0")
    return bytes(content)


def field(chance: random.Random) -> bytes:
    """A field of protobuf, often with a tag that is not as short as it can be."""
    number, wire = chance.randrange(1, 30), chance.choice((0, 1, 2, 2, 2, 5))
    key = number << 3 | wire
    if chance.random() < 0.3:
        key |= 1 << chance.randrange(32, 60)
    body = {0: varint(chance.getrandbits(chance.choice((3, 31, 64))), chance), 1: bytes(8), 5: bytes(4)}
    words = chance.choice((b"", b"Loop", b"If", b"Expand", b"\x0a\x01x", bytes(5)))
    return varint(key, chance) + body.get(wire, varint(len(words), chance) + words)


def varint(value: int, chance: random.Random) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    if chance.random() < 0.2:  # needless bytes
        out[-1] |= 128
        out += b"\x80" * chance.randrange(3) + b"\0"
    return bytes(out)


def onnx_seeds() -> list[bytes]:
    """Models that are accepted."""
    return [whole(), body(), operators()]


def operators() -> bytes:
    """A model of most operators that a bundle may hold; its answer means nothing."""
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["power", "one"], ["image"]),
        node("Conv", ["image", "kernel"], ["conv"], pads=[1, 1, 1, 1], strides=[1, 2]),
        node("BatchNormalization", ["conv", "two", "two", "two", "two"], ["norm"]),
        node("AveragePool", ["norm"], ["pool"], kernel_shape=[1, 2], strides=[1, 2], ceil_mode=1),
        node("MaxPool", ["pool"], ["most"], kernel_shape=[1, 2], auto_pad="SAME_UPPER"),
        node("GlobalAveragePool", ["most"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("Transpose", ["power"], ["time"], perm=[1, 0, 2]),
        node("GRU", ["time", "gw", "gr"], ["gru", "last"], hidden_size=4),
        node("LSTM", ["time", "lw", "lr"], ["", "state"], hidden_size=4),
        node("Squeeze", ["last", "zero"], ["rows"]),
        node("Squeeze", ["state", "zero"], ["cells"]),
        node("Split", ["rows", "halves"], ["left", "right"], axis=1),
        node("Concat", ["left", "right", "flat"], ["joined"], axis=1),
        node("Gather", ["joined", "zero"], ["first"], axis=1),
        node("Shape", ["power"], ["sizes"]),
        node("Gather", ["sizes", "zero"], ["batch"], axis=0),
        node("Mul", ["batch", "one"], ["product"]),
        node("Concat", ["product", "minus"], ["wanted"], axis=0),
        node("Reshape", ["joined", "wanted"], ["again"]),
        node("ReduceMax", ["again", "one"], ["peak"], keepdims=1),
        node("Pad", ["again", "pads"], ["padded"]),
        node("Slice", ["padded", "one", "minus", "one"], ["cut"]),
        node("Greater", ["cut", "peak"], ["over"]),
        node("Where", ["over", "cut", "peak"], ["kept"]),
        node("Gemm", ["kept", "matrix"], ["scores"], transB=1),
        node("Add", ["scores", "first"], ["sum"]),
        node("Add", ["sum", "cells"], ["more"]),
        node("Softmax", ["more"], ["probs"]),
    ]
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "one": np.array([1]), "zero": np.array([0]), "minus": np.array([-1]), "halves": np.array([2, 2]),
        "pads": np.array([0, 1, 0, 1]), "two": np.ones(2, np.float32),
        "kernel": draw.standard_normal((2, 1, 3, 3)).astype(np.float32),
        "gw": np.ones((1, 12, 64), np.float32), "gr": np.ones((1, 12, 4), np.float32),
        "lw": np.ones((1, 16, 64), np.float32), "lr": np.ones((1, 16, 4), np.float32),
        "matrix": np.ones((4, 6), np.float32),
    }  # fmt: skip
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "operators",
        [value("power", TensorProto.FLOAT, ["batch", "frames", 64])],
        [value("probs", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    content: bytes = helper.make_model(made, opset_imports=opset, ir_version=9).SerializeToString()
    return content


def onnx(content: bytes, number: int) -> str:
    """Read by us, by onnx, and now and then run by ONNX Runtime; what is wrong, or ``""``."""
    import onnx as package

    try:
        network = graph.onnx_network(content)
        graph.cost(network, graph.usual(network))
    except GraphError:
        return ""
    try:
        model = package.ModelProto.FromString(content)
    except Exception as error:  # of protobuf
        return "" if refused_by_engine(content) else f"onnx cannot read what ONNX Runtime loads: {error}"
    wrong = compared(model, network)
    return wrong or (run(content, network) if number % MEASURE == 0 else "")


def compared(model: Any, network: graph.Network) -> str:
    """What onnx sees otherwise than we do."""
    found = model.graph
    theirs = [(node.op_type, tuple(node.input), tuple(node.output)) for node in found.node]
    if theirs != [(node.operator, node.inputs, node.outputs) for node in network.nodes]:
        return f"other nodes: {theirs[:3]}"
    constants = {tensor.name: tuple(tensor.dims) for tensor in found.initializer}
    if constants != {name: value.shape for name, value in network.constants.items()}:
        return f"other constants: {constants}"
    odd = [a for n in found.node for a in n.attribute if a.HasField("g") or a.graphs or a.sparse_tensors]
    if odd or model.functions or found.sparse_initializer or model.training_info:
        return "subgraphs, functions or sparse tensors were not seen"
    if any(tensor.external_data or tensor.data_location for tensor in found.initializer):
        return "data outside the file was not seen"
    return ""


def session(content: bytes) -> Any:
    """ONNX Runtime, as the device starts it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def refused_by_engine(content: bytes) -> bool:
    """Whether ONNX Runtime does not load it."""
    try:
        session(content)
    except Exception:  # its errors share no base class
        return True
    return False


def run(content: bytes, network: graph.Network) -> str:
    """Whether the shapes that the engine gives are those that were computed before."""
    try:
        started = session(content)
        shapes = {
            one.name: (1, 8000, 64)[: len(one.shape)] if len(one.shape) == 2 else (1, 32, 64)
            for one in started.get_inputs()
        }
        feed = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        found = started.run(None, feed)
    except Exception:  # likewise: what it does not take does no harm
        return ""
    computed = graph.shapes_of(network, shapes)
    for name, array in zip((one.name for one in started.get_outputs()), found, strict=True):
        if computed[name] != array.shape:
            return f"{name} has the shape {array.shape}, {computed[name]} was computed before"
    return ""


@functools.cache
def openvino_seeds() -> tuple[list[bytes], bytes]:
    """An IR that is accepted, and its weights."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        model = openvino.Core().read_model(body(), b"")
        openvino.save_model(model, Path(folder) / "m.xml", compress_to_fp16=False)
        return [(Path(folder) / "m.xml").read_bytes()], (Path(folder) / "m.bin").read_bytes()


WORDS = (
    b' xmlns="x"', b"<layers>", b"</layers>", b"<layer/>", b"<!-- -->", b"&#65;", b"&amp;", b"x:", b"<edges>",
    b'"Loop"', b'"Tile"', b'"-1"', b'"1,2"', b"\0", b"<data/>", b"<rt_info>", b"</rt_info>", b"<body>",
    b"</body>", b'type="Loop"', b"<?x?>", b"<![CDATA[", b"]]>", b"\xff", b"\xc3\xa9", b" ", b"\n",
)  # fmt: skip


def changed_xml(seed: bytes, chance: random.Random) -> bytes:
    """An IR with words of XML put in, taken out, moved or changed."""
    content = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        at, kind = chance.randrange(len(content)), chance.randrange(5)
        if kind == 0:
            content[at:at] = chance.choice(WORDS)
        elif kind == 1:
            content[at] = chance.randrange(256)
        elif kind == 2:
            del content[at : at + chance.randint(1, 30)]
        elif kind == 3:
            lines = bytes(content).splitlines(keepends=True)
            first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
            lines[first], lines[second] = lines[second], lines[first]
            content = bytearray(b"".join(lines))
        else:
            start = content.find(b'"', at)
            end = content.find(b'"', start + 1)
            if 0 <= start < end:
                content[start : end + 1] = chance.choice(
                    (b'"Add"', b'"0"', b'"1"', b'"2"', b'"i64"', b'"99"')
                )
    return bytes(content)


def openvino(content: bytes, number: int) -> str:
    """Read by us and, where we accept it, by OpenVINO; what is wrong, or ``""``."""
    import openvino as package

    weights = openvino_seeds()[1]
    try:
        network = graph.openvino_network(content, weights)
        graph.cost(network, graph.usual(network))
    except GraphError:
        return ""
    try:
        model = package.Core().read_model(content, weights)
    except RuntimeError:
        return ""
    skipped = {"Parameter", "Result", "Constant"}
    theirs = [op.get_type_name() for op in model.get_ops() if op.get_type_name() not in skipped]
    # What leads to no result is left out by OpenVINO.
    return (
        ""
        if len(theirs) <= len(network.nodes)
        else f"{len(theirs)} operators, {len(network.nodes)} were seen"
    )
