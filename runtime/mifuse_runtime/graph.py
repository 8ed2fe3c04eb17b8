"""What a model file would make an engine do, found without running it: a bundle may come from anyone.

Refused before an engine sees them: operators off the list, parts that engines and this reader may understand
differently, and graphs that would take more memory or time than any model of speech needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from mifuse_runtime.audio import Floats
from mifuse_runtime.frontend import MelPower
from mifuse_runtime.known import known
from mifuse_runtime.onnx_model import read_onnx
from mifuse_runtime.shapes import RULES, Call, GraphError, Node, Of, Rule, Shape, Value, work

MAX_NODES = 10_000
MAX_AXES = 32
MAX_PASSED = 1000  # shapes that are remembered
SECONDS = 30.0  # of audio: what a graph is looked through for
# More than tenfold of what students and encoders take for 30 s: `python -m benchmarks.ceilings` prints them.
# A model takes much because it has many weights: the ceilings grow with the file.
LEAST_WORK, WORK_OF_BYTE, MOST_WORK = 5e9, 3e4, 3e12  # additions and multiplications
LEAST_MEMORY, MEMORY_OF_BYTE, MOST_MEMORY = 2e8, 20.0, 1.5e9  # numbers held at a time
ANY_MEMORY = 4e9  # numbers, 16 GB: also of a longer recording
_ONNX = """
Abs Add AveragePool BatchNormalization Cast Ceil Clip Concat Constant Conv Cos CumSum DFT DequantizeLinear Div
Elu Equal Erf Exp Flatten Floor GRU Gather Gelu Gemm GlobalAveragePool GlobalMaxPool Greater HardSigmoid
HardSwish Identity InstanceNormalization LSTM LayerNormalization LeakyRelu Less Log MatMul Max MaxPool Min
Mod Mul Neg PRelu Pad Pow QuantizeLinear RandomUniformLike Reciprocal ReduceL2 ReduceMax ReduceMean
ReduceMin ReduceSum Relu Reshape Round STFT Shape Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub Sum Tanh
Transpose Unsqueeze Where
"""
ONNX_OPERATORS = frozenset(_ONNX.split())


class Engine(Protocol):
    """Runs a graph: samples (batch, n), or what its front end makes of them -> answers (batch, C + V).

    An answer is probabilities of C emotions and, beside them, V dimensions from 0 to 1, if there are any.
    """

    name: str
    graph: Graph

    def __call__(self, batch: Floats) -> Floats: ...

    def answers(self, batch: Floats) -> list[Floats]:
        """Answers; then log odds of speech (batch, frames) and an embedding (batch, D), if there are any."""
        ...


@dataclass(frozen=True)
class Graph:
    """A model file, and what goes in and comes out."""

    path: Path
    input: str
    outputs: tuple[str, ...]  # probabilities first; dimensions, speech, an embedding, if there are any
    front: MelPower | None  # what makes its input of samples; None: it takes samples
    rate: int = 16_000  # Hz, of the samples

    @property
    def taken_rate(self) -> float:
        """Samples or frames a second, whichever it takes."""
        return self.rate / (self.front.hop if self.front else 1)

    def ceiling(self, network: Network) -> Ceiling:
        """What holds the graph's network to what it may take.

        Raises:
            GraphError: it takes more, or another input.
        """
        length = int(SECONDS * self.rate)
        usual = (1, length) if self.front is None else (1, 1 + length // self.front.hop, self.front.columns)
        return Ceiling(network, usual)


@dataclass(frozen=True)
class Network:
    """A model: what it computes of what."""

    nodes: list[Node]  # each behind those that it needs
    constants: dict[str, Value]
    inputs: dict[str, list[int | None]]  # sizes; None: any
    outputs: list[str]
    size: int  # bytes of the file
    rules: Mapping[str, Rule] = field(default_factory=lambda: RULES)


@dataclass(frozen=True)
class Cost:
    """What one run takes."""

    work: float  # additions and multiplications, to a factor of a few
    memory: float  # numbers held at a time, constants apart


def ceilings(network: Network, longer: float = 1.0) -> Cost:
    """What a run may take on inputs so many times as long as `SECONDS`."""
    work_of = min(MOST_WORK, LEAST_WORK + WORK_OF_BYTE * network.size)
    memory = min(MOST_MEMORY, LEAST_MEMORY + MEMORY_OF_BYTE * network.size)
    return Cost(longer * work_of, min(longer * memory, ANY_MEMORY))


def onnx_network(content: bytes) -> Network:
    """Read an ONNX model.

    Raises:
        GraphError: it is none, or holds what a bundle may not hold.
    """
    nodes, constants, inputs, outputs = read_onnx(content)
    for node in nodes:
        if node.operator not in ONNX_OPERATORS:
            raise GraphError(f"the operator {node.operator!r} is not one that a bundle may hold")
    if not 0 < len(nodes) <= MAX_NODES:
        raise GraphError(f"it has {len(nodes)} nodes, 1 to {MAX_NODES} expected")
    return Network(nodes, constants, inputs, outputs, len(content))


def openvino_network(xml: bytes, weights: bytes | int) -> Network:
    """Read an OpenVINO model and its weights, or a model whose weights have so many bytes.

    Raises:
        GraphError: as for `onnx_network`.
    """
    from mifuse_runtime.openvino_model import read_openvino
    from mifuse_runtime.openvino_shapes import OWN

    nodes, constants, inputs, outputs = read_openvino(xml, weights)
    layers = len(nodes) + len(constants)
    if not 0 < layers <= MAX_NODES:
        raise GraphError(f"it has {layers} layers, 1 to {MAX_NODES} expected")
    size = len(xml) + (weights if isinstance(weights, int) else len(weights))
    return Network(nodes, constants, inputs, outputs, size, {**RULES, **OWN})


def cost(network: Network, shapes: Mapping[str, Shape], longer: float = 1.0) -> Cost:
    """What a run on inputs of these shapes takes.

    Args:
        longer: by how much the inputs are larger than for `SECONDS`; so are the ceilings.

    Raises:
        GraphError: more than any model of speech needs, or it cannot be known.
    """
    values = dict(network.constants)
    for name, shape in shapes.items():
        _add(values, name, Value(shape))
    last = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}
    most = ceilings(network, longer)
    audio = set(shapes)  # and what is made of it
    done, held, peak = 0, 0, 0
    for i, node in enumerate(network.nodes):
        found, steps = _run(node, values, network.rules)
        done += steps
        held += sum(math.prod(value.shape) for value in found)
        peak = max(peak, held)
        if done > most.work or peak > most.memory:
            what = f"{done:.1e} operations" if done > most.work else f"{peak:.1e} numbers at a time"
            raise GraphError(
                f"for {SECONDS * longer:.0f} s of audio it takes {what} by its node {i + 1}, {node.operator}"
            )
        for name, value in zip(node.outputs, found, strict=True):
            _add(values, name, value)
        # What is made of constants alone an engine computes once and keeps.
        if not audio.isdisjoint(node.inputs):
            audio.update(node.outputs)
        gone = {name for name in node.inputs if last[name] == i and name in audio and name not in shapes}
        held -= sum(math.prod(values[name].shape) for name in gone)
    for name in network.outputs:
        if name not in values:
            raise GraphError(f"nothing gives its output {name!r}")
    return Cost(done, peak)


def _run(node: Node, values: Mapping[str, Value], rules: Mapping[str, Rule]) -> tuple[list[Value], int]:
    """What is known of the outputs of a node, and its work."""
    if not node.outputs:
        raise GraphError(f"{node.operator} gives nothing")
    given: list[Value | None] = []
    for name in node.inputs:
        if name and name not in values:
            raise GraphError(f"{node.operator} takes {name!r}, which nothing gives before it")
        given.append(values[name] if name else None)
    attributes = {key: _numbers(value, values) for key, value in node.attributes.items()}
    call = Call(replace(node, attributes=attributes), given)
    try:
        shapes = rules[node.operator](call)
        contents = known(call, shapes)
        steps = work(call, shapes)
    except GraphError:
        raise
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
        sizes = ", ".join(str(value.shape) for value in given if value)
        raise GraphError(f"{node.operator} of {sizes} cannot be: {error}") from error
    if len(shapes) < len(node.outputs) or any(min(s, default=0) < 0 or len(s) > MAX_AXES for s in shapes):
        raise GraphError(f"{node.operator} gives {', '.join(map(str, shapes))}")
    made = zip(shapes, contents, strict=True)
    return [Value(*one) for one in made][: len(node.outputs)], steps


def _numbers(value: Any, values: Mapping[str, Value]) -> Any:
    """The attribute itself, or the whole number that a tensor holds for it."""
    if not isinstance(value, Of):
        return value
    content = values[value.name].content if value.name in values else None
    if content is None or content.size != 1 or content.dtype.kind not in "iu":
        raise GraphError(f"{value.name!r} is no whole number that is known before there is audio")
    return int(content.item())


def _add(values: dict[str, Value], name: str, value: Value) -> None:
    if name in values:
        raise GraphError(f"there are two values {name!r}")
    if name:
        values[name] = value


def shapes_of(network: Network, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shape of every value, without bounds: for whoever compares it with what an engine gives.

    Raises:
        GraphError: it cannot be known.
    """
    values = network.constants | {name: Value(shape) for name, shape in shapes.items()}
    for node in network.nodes:
        values |= zip(node.outputs, _run(node, values, network.rules)[0], strict=True)
    return {name: value.shape for name, value in values.items()}


class Ceiling:
    """Holds each shape that a network is to be run on against the ceilings, once.

    Not the largest alone: a graph may take more for a shorter clip, or for one of a certain length.

    Args:
        network: has one input.
        usual: its shape for `SECONDS` of audio.

    Raises:
        GraphError: the network has another input, or takes too much for that.
    """

    def __init__(self, network: Network, usual: Shape) -> None:
        if len(network.inputs) != 1:
            raise GraphError(f"its inputs are {list(network.inputs)}, one expected")
        ((name, sizes),) = network.inputs.items()
        if len(sizes) != len(usual):
            raise GraphError(f"its input has {len(sizes)} axes, {len(usual)} expected")
        if len(usual) > 2 and sizes[2] not in (None, usual[2]):
            raise GraphError(f"its input has {sizes[2]} mel bins, bundle.json says {usual[2]}")
        self._network, self._name, self._usual = network, name, math.prod(usual)
        self._passed: set[Shape] = set()
        self.check(tuple(size or wanted for size, wanted in zip(sizes, usual, strict=True)))

    def check(self, shape: Shape) -> None:
        """Refuse a batch.

        Raises:
            GraphError: it would take too much memory or time, or the graph does not take it.
        """
        if shape not in self._passed:
            cost(self._network, {self._name: shape}, max(1.0, math.prod(shape) / self._usual))
            if len(self._passed) > MAX_PASSED:
                self._passed.clear()
            self._passed.add(shape)


def onnx_problem(content: bytes) -> str | None:
    """What must not be run in the bytes of an ONNX model, or None."""
    try:
        network = onnx_network(content)
        cost(network, usual(network))
    except GraphError as error:
        return str(error)
    return None


def openvino_problem(xml: bytes, weights: bytes | int) -> str | None:
    """What must not be run in an OpenVINO model, or None."""
    try:
        network = openvino_network(xml, weights)
        cost(network, usual(network))
    except GraphError as error:
        return str(error)
    return None


def usual(network: Network, rate: int = 16_000, hop: int = 256, mels: int = 64) -> dict[str, Shape]:
    """Inputs of `SECONDS` of audio: samples (batch, n), or frames (batch, frames, mels)."""
    found: dict[str, Shape] = {}
    for name, sizes in network.inputs.items():
        wanted = [1, int(SECONDS * rate)] if len(sizes) == 2 else [1, 1 + int(SECONDS * rate) // hop, mels]
        wanted += [1] * len(sizes)
        found[name] = tuple(given or size for given, size in zip(sizes, wanted, strict=False))
    return found
