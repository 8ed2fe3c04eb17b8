"""Shapes of all that a graph computes and what it costs, found without running it: the rule of each operator.

A rule is given a node and the shapes of its inputs, and where a few numbers decide on a shape, those numbers.
What cannot be known is refused: a graph whose shapes depend on the audio could be of any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Shape = tuple[int, ...]
FEW = 1 << 12  # numbers that are computed here; a shape has fewer than ten


class GraphError(ValueError):
    """The graph must not be run, or it cannot be known what it would do."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a tensor."""

    shape: Shape
    content: NDArray[Any] | None = None  # where it is known before there is any audio


@dataclass(frozen=True, slots=True)
class Of:
    """An attribute that a node takes from a tensor of whole numbers."""

    name: str


@dataclass(frozen=True, slots=True)
class Node:
    """One operator, by the name that ONNX has for it."""

    operator: str
    inputs: tuple[str, ...]  # "": left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]  # whole numbers, lists of them, text, a Value, an Of


class Call:
    """A node and what is known of its inputs."""

    def __init__(self, node: Node, given: Sequence[Value | None]) -> None:
        self.node, self.given = node, given

    def shape(self, index: int) -> Shape:
        """Of an input that must be there."""
        if index >= len(self.given) or (value := self.given[index]) is None:
            raise GraphError(f"{self.node.operator} has too few inputs")
        return value.shape

    def has(self, index: int) -> bool:
        """Whether an input is there."""
        return index < len(self.given) and self.given[index] is not None

    def whole(self, name: str, default: int = 0) -> int:
        """An attribute that is a whole number."""
        value = self.node.attributes.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise GraphError(f"{self.node.operator}: {name} is no whole number")
        return value

    def wholes(self, name: str, index: int | None = None) -> list[int] | None:
        """Whole numbers in an attribute, or in an input; None without either.

        Raises:
            GraphError: the input is only known when there is audio.
        """
        value = self.node.attributes.get(name)
        if value is None and index is not None and self.has(index):
            given = self.given[index]
            value = None if given is None else given.content
            if value is None or value.dtype.kind not in "iub":
                raise GraphError(f"the shape of what {self.node.operator} gives depends on the audio")
            value = [int(one) for one in value.reshape(-1)]
        if value is not None and not (isinstance(value, list) and all(isinstance(one, int) for one in value)):
            raise GraphError(f"{self.node.operator}: {name} are no whole numbers")
        return value

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """The attribute as an axis of `rank`."""
        return axis_of(self.whole(name, default), rank)


Rule = Callable[[Call], Sequence[Shape]]


def axis_of(axis: int, rank: int) -> int:
    """From 0; negative ones count from behind."""
    if not -rank <= axis < rank:
        raise GraphError(f"axis {axis} of {rank} axes")
    return axis % rank


def broadcast(*shapes: Shape) -> Shape:
    """The shape of what is computed element by element."""
    rank = max(map(len, shapes))
    found = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        larger = {size for size in sizes if size != 1}
        if len(larger) > 1:
            raise GraphError(f"the shapes {', '.join(map(str, shapes))} do not go together")
        found.append(larger.pop() if larger else 1)
    return tuple(found)


def _same(call: Call) -> list[Shape]:
    return [call.shape(0)] * len(call.node.outputs)


def _elementwise(call: Call) -> list[Shape]:
    return [broadcast(*(call.shape(i) for i in range(len(call.given))))]


def _matmul(call: Call) -> list[Shape]:
    first, second = call.shape(0), call.shape(1)
    if not first or not second:
        raise GraphError("MatMul of a single number")
    left = (1, *first) if len(first) == 1 else first
    right = (*second, 1) if len(second) == 1 else second
    if call.whole("transA"):
        left = (*left[:-2], left[-1], left[-2])
    if call.whole("transB"):
        right = (*right[:-2], right[-1], right[-2])
    if left[-1] != right[-2]:
        raise GraphError(f"{call.node.operator} of {first} and {second}")
    found = (*broadcast(left[:-2], right[:-2]), left[-2], right[-1])
    found = found[:-2] + found[-1:] if len(first) == 1 else found
    return [found[:-1] if len(second) == 1 else found]


def _reduce(call: Call) -> list[Shape]:
    shape, axes = call.shape(0), call.wholes("axes", 1)
    if not axes:
        axes = [] if call.whole("noop_with_empty_axes") else list(range(len(shape)))
    gone = {axis_of(axis, len(shape)) for axis in axes}
    keep = call.whole("keepdims", 1)
    return [tuple(1 if i in gone else n for i, n in enumerate(shape) if keep or i not in gone)]


def _concat(call: Call) -> list[Shape]:
    shapes = [call.shape(i) for i in range(len(call.given))]
    axis = call.axis(0, len(call.shape(0)))
    if len({(len(s), s[:axis], s[axis + 1 :]) for s in shapes}) > 1:
        raise GraphError(f"the shapes {', '.join(map(str, shapes))} do not go together")
    return [(*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])]


def _flatten(call: Call) -> list[Shape]:
    shape = call.shape(0)
    axis = call.whole("axis", 1)
    axis = axis_of(axis, len(shape)) if axis != len(shape) else axis
    return [(math.prod(shape[:axis]), math.prod(shape[axis:]))]


def _gather(call: Call) -> list[Shape]:
    shape, index = call.shape(0), call.shape(1)
    axis = call.axis(0, len(shape))
    batch = call.whole("batch_dims")
    if not 0 <= batch <= min(axis, len(index)):
        raise GraphError(f"Gather with batch_dims {batch}")
    return [shape[:axis] + index[batch:] + shape[axis + 1 :]]


def _pad(call: Call) -> list[Shape]:
    shape, pads = call.shape(0), call.wholes("pads", 1)
    axes = call.wholes("axes", 3)
    places = [axis_of(a, len(shape)) for a in axes] if axes is not None else list(range(len(shape)))
    if pads is None or len(pads) != 2 * len(places):
        raise GraphError(f"Pad of {shape} by {pads}")
    found = list(shape)
    for i, axis in enumerate(places):
        found[axis] += pads[i] + pads[i + len(places)]
    return [tuple(found)]


def _reshape(call: Call) -> list[Shape]:
    shape, wanted = call.shape(0), call.wholes("shape", 1)
    if wanted is None:
        raise GraphError("Reshape without a shape")
    found = list(wanted)
    for i, size in enumerate(found):
        if size == 0 and not call.whole("allowzero"):
            if i >= len(shape):
                raise GraphError(f"Reshape of {shape} to {wanted}")
            found[i] = shape[i]
    if found.count(-1) == 1:
        rest = -math.prod(found)
        found[found.index(-1)] = math.prod(shape) // rest if rest > 0 else 0
    if math.prod(found) != math.prod(shape):
        raise GraphError(f"Reshape of {shape} to {wanted}")
    return [tuple(found)]


def _slice(call: Call) -> list[Shape]:
    shape = list(call.shape(0))
    starts, ends = call.wholes("starts", 1), call.wholes("ends", 2)
    axes, steps = call.wholes("axes", 3), call.wholes("steps", 4)
    if starts is None or ends is None:
        raise GraphError("Slice without starts and ends")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise GraphError("Slice with starts and ends that do not go together")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = axis_of(axis, len(shape))
        shape[place] = len(range(*slice(start, end, step).indices(shape[place])))
    return [tuple(shape)]


def _split(call: Call) -> list[Shape]:
    shape = call.shape(0)
    axis, count = call.axis(0, len(shape)), len(call.node.outputs)
    sizes = call.wholes("split", 1)
    if sizes is None:
        each = -(-shape[axis] // count)
        sizes = [each] * (count - 1) + [shape[axis] - each * (count - 1)]
    elif sizes.count(-1) == 1:
        sizes = [shape[axis] - sum(sizes) - 1 if size == -1 else size for size in sizes]
    if len(sizes) != count or sum(sizes) != shape[axis]:
        raise GraphError(f"Split of {shape[axis]} into {sizes}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _squeeze(call: Call) -> list[Shape]:
    shape, axes = call.shape(0), call.wholes("axes", 1)
    gone = (
        {i for i, n in enumerate(shape) if n == 1} if axes is None else {axis_of(a, len(shape)) for a in axes}
    )
    if any(shape[i] != 1 for i in gone):
        raise GraphError(f"Squeeze of {shape} at {sorted(gone)}")
    return [tuple(n for i, n in enumerate(shape) if i not in gone)]


def _unsqueeze(call: Call) -> list[Shape]:
    shape, axes = call.shape(0), call.wholes("axes", 1) or []
    if len(axes) > FEW:
        raise GraphError("Unsqueeze to too many axes")
    new = {axis_of(axis, len(shape) + len(axes)) for axis in axes}
    rest = iter(shape)
    return [tuple(1 if i in new else next(rest) for i in range(len(shape) + len(new)))]


def _transpose(call: Call) -> list[Shape]:
    shape = call.shape(0)
    order = call.wholes("perm", 1) or list(range(len(shape)))[::-1]
    if sorted(order) != list(range(len(shape))):
        raise GraphError(f"Transpose of {shape} by {order}")
    return [tuple(shape[i] for i in order)]


def _global_pool(call: Call) -> list[Shape]:
    shape = call.shape(0)
    return [(*shape[:2], *(1 for _ in shape[2:]))]


def windows(call: Call, sizes: Shape, kernel: Shape) -> Shape:
    """How many places a kernel has in each of some dimensions."""
    rank = len(sizes)
    strides, dilations = (call.wholes(name) or [1] * rank for name in ("strides", "dilations"))
    pads, auto = call.wholes("pads") or [0] * 2 * rank, call.node.attributes.get("auto_pad", "NOTSET")
    if not (len(kernel) == len(strides) == len(dilations) == rank and len(pads) == 2 * rank):
        raise GraphError(f"{call.node.operator} with a kernel {kernel} over {sizes}")
    if min((*strides, *dilations, *kernel), default=1) < 1 or min(pads, default=0) < 0:
        raise GraphError(f"{call.node.operator} with strides {strides}, dilations {dilations}, pads {pads}")
    found = []
    for i, size in enumerate(sizes):
        reach = dilations[i] * (kernel[i] - 1) + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            found.append(-(-size // strides[i]))
            continue
        room = size - reach + (0 if auto == "VALID" else pads[i] + pads[i + rank])
        if room < 0:
            raise GraphError(f"{call.node.operator} with a kernel {kernel} over {sizes}")
        found.append(1 + (-(-room // strides[i]) if call.whole("ceil_mode") else room // strides[i]))
    return tuple(found)


def _conv(call: Call) -> list[Shape]:
    data, weights, group = call.shape(0), call.shape(1), call.whole("group", 1)
    if len(data) < 3 or len(weights) != len(data) or group < 1 or data[1] != weights[1] * group:
        raise GraphError(f"Conv of {data} with {weights} in {group} groups")
    return [(data[0], weights[0], *windows(call, data[2:], weights[2:]))]


def _pool(call: Call) -> list[Shape]:
    data = call.shape(0)
    kernel = tuple(call.wholes("kernel_shape") or ())
    return [(*data[:2], *windows(call, data[2:], kernel))] * len(call.node.outputs)


def _recurrent(call: Call) -> list[Shape]:
    data, recurrence = call.shape(0), call.shape(2)
    if len(data) != 3 or len(recurrence) != 3 or call.whole("layout"):
        raise GraphError(f"{call.node.operator} of {data} with {recurrence}")
    (time, batch, _), (directions, _, hidden) = data, recurrence
    last = (directions, batch, hidden)
    return [(time, directions, batch, hidden), last, last][: len(call.node.outputs)]


def _dft(call: Call) -> list[Shape]:
    shape = call.shape(0)
    axes = call.wholes("axis", 2) if "axis" not in call.node.attributes else [call.whole("axis", 1)]
    axis = axis_of((axes or [-2 if len(call.given) > 2 else 1])[0], len(shape))
    length = (call.wholes("dft_length", 1) or [shape[axis]])[0]
    if length < 1 or axis == len(shape) - 1:
        raise GraphError(f"DFT of {shape}")
    bins = length // 2 + 1 if call.whole("onesided") else length
    return [(*shape[:axis], bins, *shape[axis + 1 : -1], 2)]


def _stft(call: Call) -> list[Shape]:
    shape, step = call.shape(0), (call.wholes("frame_step", 1) or [0])[0]
    length = call.shape(2)[0] if call.has(2) else (call.wholes("frame_length", 3) or [0])[0]
    if step < 1 or not 1 <= length <= shape[1]:
        raise GraphError(f"STFT of {shape} with frames of {length} each {step}")
    bins = length // 2 + 1 if call.whole("onesided", 1) else length
    return [(shape[0], 1 + (shape[1] - length) // step, bins, 2)]


def _shape_of(call: Call) -> list[Shape]:
    return [(len(call.shape(0)[_part(call)]),)]


def _part(call: Call) -> slice:
    rank = len(call.shape(0))
    start, end = call.whole("start"), call.whole("end", rank)
    return slice(*slice(start, end).indices(rank))


def _constant(call: Call) -> list[Shape]:
    value = call.node.attributes.get("value")
    if not isinstance(value, Value):
        raise GraphError("a Constant without a value")
    return [value.shape]


_SAME = """
Abs BatchNormalization Cast Ceil Clip Cos CumSum DequantizeLinear Elu Erf Exp Floor Gelu HardSigmoid HardSwish
Identity InstanceNormalization LayerNormalization LeakyRelu Log Neg PRelu QuantizeLinear RandomUniformLike
Reciprocal Relu Round Sigmoid Sin Softmax Sqrt Tanh
"""
_ELEMENTWISE = "Add Div Equal Greater Less Max Min Mod Mul Pow Sub Sum Where"
# What takes an engine some ten times as long as an addition.
_SLOW = {"CumSum", "Erf", "Exp", "Gelu", "Log", "Pow", "Sigmoid", "Sin", "Cos", "Softmax", "Tanh"}
RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    **dict.fromkeys(("MatMul", "Gemm"), _matmul),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GRU", "LSTM"), _recurrent),
    "Concat": _concat, "Constant": _constant, "Conv": _conv, "DFT": _dft, "Flatten": _flatten,
    "Gather": _gather, "Pad": _pad, "Reshape": _reshape, "STFT": _stft, "Shape": _shape_of, "Slice": _slice,
    "Split": _split, "Squeeze": _squeeze, "Transpose": _transpose, "Unsqueeze": _unsqueeze,
}  # fmt: skip


def work(call: Call, found: Sequence[Shape]) -> int:
    """Additions and multiplications of a node, to a factor of a few."""
    made = sum(math.prod(shape) for shape in found)
    name = call.node.operator
    if name in ("MatMul", "Gemm"):
        first = call.shape(0)
        return made * max(1, first[-2 if call.whole("transA") and len(first) > 1 else -1])
    if name in ("Conv", "GroupConvolution"):
        kernels: Shape = call.shape(1)[1:] if name == "Conv" else call.shape(1)[2:]
        return made * math.prod(kernels)
    if name in ("AveragePool", "MaxPool"):
        return made * math.prod(call.wholes("kernel_shape") or [1])
    if name in ("GRU", "LSTM", "GRUSequence", "LSTMSequence"):
        at = 1 if name in ("GRU", "LSTM") else len(call.given) - 3  # weights of the input, then of the state
        weights = math.prod(call.shape(at)) + math.prod(call.shape(at + 1))
        return math.prod(call.shape(0)[:2]) * weights
    if name in ("DFT", "RDFT", "STFT"):
        return 64 * made * max(1, made.bit_length())  # not all lengths have a fast transform
    if name in _SLOW:
        made *= 8
    return made + sum(math.prod(value.shape) for value in call.given if value is not None)
