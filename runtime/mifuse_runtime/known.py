"""The few numbers of a graph that decide on shapes, computed ahead as an engine would."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.shapes import FEW, Call, Shape, axis_of

Array = NDArray[Any]
# ONNX's numbers of types -> NumPy's; a half of Google's has none, and its numbers are not needed.
DTYPES = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8",
    12: "<u4", 13: "<u8",
}  # fmt: skip
LARGEST = 1 << 40  # of a computed number that still means a size


def known(call: Call, found: Sequence[Shape]) -> list[Array | None]:
    """The content of each output of a node; None where it depends on audio, is long or odd."""
    if call.node.operator != "Split":
        return [_only(call, found), *[None] * (len(found) - 1)]
    content, axis = call.given[0].content if call.given[0] else None, call.axis(0, len(call.shape(0)))
    if content is None:
        return [None] * len(found)
    ends = np.cumsum([shape[axis] for shape in found])[:-1]
    return list(np.split(content, ends, axis))


def _only(call: Call, found: Sequence[Shape]) -> Array | None:
    name = call.node.operator
    if len(found) != 1 or math.prod(found[0]) > FEW:
        return None
    if name == "Constant":
        content: Array | None = call.node.attributes["value"].content
        return content
    if name == "Shape":
        part = slice(call.whole("start"), call.whole("end", len(call.shape(0))))
        return np.array(call.shape(0)[part], np.int64)
    return _computed(call, found[0])


def _computed(call: Call, shape: Shape) -> Array | None:
    name = call.node.operator
    compute = _COMPUTE.get(name)
    given = [value.content for value in call.given if value is not None]
    if compute is None or any(one is None for one in given):
        return None
    with np.errstate(all="ignore"):
        result = np.asarray(compute(call, [one for one in given if one is not None])).reshape(shape)
    if result.dtype.kind == "f" and not np.isfinite(result).all():
        return None
    if name in _ARITHMETIC and result.size and abs(result.astype(np.float64)).max() > LARGEST:
        return None  # engines differ in what follows
    return result


def _divide(call: Call, given: list[Array]) -> Array:
    first, second = given
    if first.dtype.kind == "f":
        return np.asarray(first / second)
    if not np.all(second):
        raise ValueError("division by zero")
    if call.whole("floor"):
        return np.asarray(first // second)
    return np.asarray(np.sign(first) * np.sign(second) * (np.abs(first) // np.abs(second))).astype(
        first.dtype
    )


def _modulo(call: Call, given: list[Array]) -> Array:
    if given[0].dtype.kind != "f" and not np.all(given[1]):
        raise ValueError("division by zero")
    return np.asarray((np.fmod if call.whole("fmod") else np.mod)(*given))


def _cast(call: Call, given: list[Array]) -> Array:
    return given[0].astype(DTYPES[call.whole("to")])


def _gather(call: Call, given: list[Array]) -> Array:
    if call.whole("batch_dims"):
        raise ValueError("batches")
    return np.asarray(np.take(given[0], given[1].astype(np.int64), call.whole("axis")))


def _slice(call: Call, given: list[Array]) -> Array:
    starts, ends = call.wholes("starts", 1) or [], call.wholes("ends", 2) or []
    axes = call.wholes("axes", 3) or range(len(starts))
    steps = call.wholes("steps", 4) or [1] * len(starts)
    places = [slice(None)] * given[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = given[0].shape[axis_of(axis, given[0].ndim)]
        first, last, by = slice(start, end, step).indices(size)
        places[axis] = slice(first, None if last < 0 else last, by)
    return np.asarray(given[0][tuple(places)])


def _reduce(function: Callable[..., Any]) -> Callable[[Call, list[Array]], Array]:
    def reduce(call: Call, given: list[Array]) -> Array:
        axes = call.wholes("axes", 1)
        if not axes and call.whole("noop_with_empty_axes"):
            return given[0]
        return np.asarray(function(given[0], axis=tuple(axes) if axes else None)).astype(given[0].dtype)

    return reduce


def _of(function: Callable[..., Any]) -> Callable[[Call, list[Array]], Array]:
    return lambda _, given: np.asarray(function(*given))


def _fold(function: Callable[..., Any], given: list[Array]) -> Array:
    result = given[0]
    for one in given[1:]:
        result = np.asarray(function(result, one))
    return result


def _spread(call: Call, given: list[Array]) -> Array:
    shape = call.wholes("shape", 1) or []
    return np.broadcast_to(given[0], np.broadcast_shapes(given[0].shape, tuple(shape)))


_COMPUTE: dict[str, Callable[[Call, list[Array]], Array]] = {
    **dict.fromkeys(("Identity", "Reshape", "Squeeze", "Unsqueeze"), lambda _, given: given[0]),
    "Abs": _of(np.abs),
    "Add": _of(np.add),
    "Broadcast": _spread,
    "Cast": _cast,
    "Ceil": _of(np.ceil),
    "Concat": lambda call, given: np.concatenate(given, call.whole("axis")),
    "Div": _divide,
    "Equal": _of(np.equal),
    "Floor": _of(np.floor),
    "Gather": _gather,
    "Greater": _of(np.greater),
    "Less": _of(np.less),
    "Max": lambda _, given: _fold(np.maximum, given),
    "Min": lambda _, given: _fold(np.minimum, given),
    "Mod": _modulo,
    "Mul": _of(np.multiply),
    "Neg": _of(np.negative),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceSum": _reduce(np.sum),
    "Round": _of(np.round),
    "Slice": _slice,
    "Sub": _of(np.subtract),
    "Where": _of(np.where),
}
_ARITHMETIC = {"Abs", "Add", "Cast", "Ceil", "Div", "Floor", "Mod", "Mul", "Neg", "ReduceSum", "Sub"}
