"""A model file: what goes in and out, and what it holds, read without running it.

It may come from anyone, and its hashes with it. Refused before an engine sees them: operators off the lists
below, subgraphs, data outside the file, tensors that claim more than the file holds. Left in are operators
whose output is of the size of their inputs or less, or set by weights; what broadcasting can do with them is
not bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mifuse_runtime.audio import Floats
from mifuse_runtime.frontend import MelPower

MAX_NODES = 10_000
_ONNX = """
Abs Add AveragePool BatchNormalization Cast Ceil Clip Concat Constant Conv Cos CumSum DFT DequantizeLinear Div
Elu Equal Erf Exp Flatten Floor GRU Gather Gelu Gemm GlobalAveragePool GlobalMaxPool Greater HardSigmoid
HardSwish Identity InstanceNormalization LSTM LayerNormalization LeakyRelu Less Log MatMul Max MaxPool Min
Mod Mul Neg PRelu Pad Pow QuantizeLinear RandomUniformLike Reciprocal ReduceL2 ReduceMax ReduceMean
ReduceMin ReduceSum Relu Reshape Round STFT Shape Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub Sum Tanh
Transpose Unsqueeze Where
"""
_OPENVINO = """
Abs Add AvgPool BatchNormInference Broadcast Clamp Concat Const Convert Convolution Cos CumSum DFT Divide Elu
Equal Erf Exp FakeQuantize Floor FloorMod GRUSequence Gather Gelu Greater GroupConvolution HSigmoid HSwish
LSTMSequence Less Log MVN MatMul MaxPool Maximum Minimum Mod Multiply Negative PRelu Pad Parameter Power
RDFT RandomUniform ReLU ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Reshape Result Round STFT Select
ShapeOf Sigmoid Sin Slice SoftMax Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tanh
Transpose Unsqueeze VariadicSplit
"""
ONNX_OPERATORS, OPENVINO_OPERATORS = frozenset(_ONNX.split()), frozenset(_OPENVINO.split())
_TENSOR_DATA = (4, 5, 6, 7, 9, 10, 11)  # the fields of a TensorProto that hold its values


@dataclass(frozen=True)
class Graph:
    """A model file, and what goes in and comes out."""

    path: Path
    input: str
    outputs: tuple[str, ...]  # probabilities first; an embedding, if there is one
    front: MelPower | None  # what makes its input of samples; None: it takes samples


class Engine(Protocol):
    """Runs a graph: samples (batch, n), or what its front end makes of them -> probabilities (batch, C)."""

    name: str
    graph: Graph

    def __call__(self, batch: Floats) -> Floats: ...

    def answers(self, batch: Floats) -> list[Floats]:
        """Every output of the graph: probabilities, and an embedding (batch, D) if there is one."""
        ...


def onnx_problem(content: bytes) -> str | None:
    """What must not be run in the bytes of an ONNX model, or None."""
    try:
        return next(_onnx_problems(memoryview(content)), None)
    except (ValueError, IndexError, UnicodeDecodeError, AttributeError, TypeError):
        return "it is not an ONNX model"


def _onnx_problems(model: memoryview) -> Iterator[str]:
    nodes = 0
    for number, part in _fields(model):
        if number in (20, 25):
            yield "it holds functions or training graphs"
        if number != 7:
            continue
        for kind, content in _fields(_bytes(part)):
            if kind == 1:
                nodes += 1
                yield from _node_problems(_bytes(content))
            elif kind == 5:
                yield from _tensor_problems(_bytes(content))
            elif kind == 15:
                yield "it holds sparse tensors"
    if not 0 < nodes <= MAX_NODES:
        yield f"it has {nodes} nodes, 1 to {MAX_NODES} expected"


def _node_problems(node: memoryview) -> Iterator[str]:
    operator = domain = ""
    for number, content in _fields(node):
        if number == 4:
            operator = str(_bytes(content), "utf-8")
        elif number == 7:
            domain = str(_bytes(content), "utf-8")
        elif number == 5:
            for kind, value in _fields(_bytes(content)):
                if kind in (6, 11, 22, 23):
                    yield "it holds subgraphs or sparse tensors"
                elif kind in (5, 10):
                    yield from _tensor_problems(_bytes(value))
    if domain not in ("", "ai.onnx") or operator not in ONNX_OPERATORS:
        name = f"{domain}.{operator}" if domain else operator
        yield f"the operator {name!r} is not one that a bundle may hold"


def _tensor_problems(tensor: memoryview) -> Iterator[str]:
    dims: list[int] = []
    held = 0
    for number, content in _fields(tensor):
        if number == 1:
            dims += [content] if isinstance(content, int) else _varints(content)
        elif number == 13 or (number == 14 and content != 0):
            yield "it keeps data outside the file"
        elif number in _TENSOR_DATA:
            held += 10 if isinstance(content, int) else len(content)
    if math.prod(dims) > held:  # a negative dimension reads as one near 2 ** 64
        yield f"a tensor of shape {dims} has {held} bytes"


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value or content of each field of a protobuf message, https://protobuf.dev/programming-guides/encoding/."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind] if kind in (1, 5) else -1, at)
        if not 0 <= size <= len(message) - at:
            raise ValueError("a field is longer than its message")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number is longer than 10 bytes")


def _varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def openvino_problem(xml: bytes, weights: int) -> str | None:
    """What must not be run in an OpenVINO model whose .bin has `weights` bytes, or None."""
    from xml.etree import ElementTree  # only where OpenVINO is used

    if b"<!" in xml:
        return "it declares entities"  # which may grow without end
    try:
        layers = ElementTree.fromstring(xml).findall("./layers/layer")  # noqa: S314, no entities: see above
        for layer in layers:
            data = layer.find("data")
            if layer.get("type") not in OPENVINO_OPERATORS:
                return f"the operator {layer.get('type')!r} is not one that a bundle may hold"
            if layer.get("type") == "Const" and data is not None:
                shape = [int(size) for size in data.get("shape", "").split(",") if size]
                offset, size = int(data.get("offset", 0)), int(data.get("size", 0))
                if min([offset, *shape], default=0) < 0 or not math.prod(shape) <= size <= weights - offset:
                    return f"a tensor of shape {shape} has {size} bytes at {offset} of {weights}"
    except (ElementTree.ParseError, ValueError):
        return "it is not an OpenVINO model"
    return None if 0 < len(layers) <= MAX_NODES else f"it has {len(layers)} layers, 1 to {MAX_NODES} expected"
