"""Rules of `shapes` for operators that OpenVINO has in a form of its own."""

from __future__ import annotations

from mifuse_runtime.shapes import RULES, Call, GraphError, Rule, Shape, axis_of, broadcast, windows


def _pad(call: Call) -> list[Shape]:
    shape, begins, ends = call.shape(0), call.wholes("begins", 1) or [], call.wholes("ends", 2) or []
    if not len(begins) == len(ends) == len(shape):
        raise GraphError(f"Pad of {shape} by {begins} and {ends}")
    return [tuple(size + first + last for size, first, last in zip(shape, begins, ends, strict=True))]


def _grouped(call: Call) -> list[Shape]:
    data, weights = call.shape(0), call.shape(1)
    if len(weights) != len(data) + 1 or len(data) < 3 or data[1] != weights[0] * weights[2]:
        raise GraphError(f"GroupConvolution of {data} with {weights}")
    return [(data[0], weights[0] * weights[1], *windows(call, data[2:], weights[3:]))]


def _strided_slice(call: Call) -> list[Shape]:
    shape, begins, ends = list(call.shape(0)), call.wholes("begins", 1), call.wholes("ends", 2)
    if begins is None or ends is None or any(call.wholes("ellipsis") or []):
        raise GraphError("StridedSlice without ends, or with an ellipsis")
    steps = call.wholes("steps", 3) or [1] * len(begins)
    if not len(begins) == len(ends) == len(steps) or 0 in steps:
        raise GraphError("StridedSlice with ends that do not go together")
    masks = [
        (call.wholes(name) or []) + [0] * len(begins) for name in ("begin", "end", "new_axis", "shrink_axis")
    ]
    found = []
    for i, (start, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        first, last, new, shrink = (mask[i] for mask in masks)
        if new:
            found.append(1)
            continue
        size = shape.pop(0)
        if not shrink:
            part = slice(None if first else start, None if last else end, step)
            found.append(len(range(*part.indices(size))))
    return [tuple(found + shape)]


def _fourier(call: Call) -> list[Shape]:
    """DFT, and RDFT, whose input has no axis of two parts."""
    real = call.node.operator == "RDFT"
    shape = list(call.shape(0)) if real else list(call.shape(0)[:-1])
    axes = [axis_of(axis, len(shape)) for axis in call.wholes("axes", 1) or []]
    sizes = call.wholes("sizes", 2) or [-1] * len(axes)
    if not axes or len(sizes) != len(axes):
        raise GraphError(f"{call.node.operator} of {shape} at {axes}")
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = shape[axis] if size == -1 else size
    if real:
        shape[axes[-1]] = shape[axes[-1]] // 2 + 1
    return [(*shape, 2)]


def _stft(call: Call) -> list[Shape]:
    signal, (length,), (step,) = call.shape(0), call.wholes("size", 2) or [0], call.wholes("step", 3) or [0]
    if step < 1 or not 1 <= length <= signal[-1]:
        raise GraphError(f"STFT of {signal} with frames of {length} each {step}")
    frames, bins = 1 + (signal[-1] - length) // step, length // 2 + 1
    return [(*signal[:-1], *((bins, frames) if call.whole("transposed") else (frames, bins)), 2)]


def _recurrent(call: Call) -> list[Shape]:
    data, state = call.shape(0), call.shape(1)
    weights = call.shape(len(call.given) - 2)  # of the state; its input's come before, a bias behind
    if len(data) != 3 or len(state) != 3 or len(weights) != 3 or state[2] != weights[2]:
        raise GraphError(f"{call.node.operator} of {data} and {state} with {weights}")
    return [(state[0], state[1], data[1], state[2]), state, state]


def _broadcast(call: Call) -> list[Shape]:
    wanted = call.wholes("shape", 1)
    if wanted is None or min(wanted, default=0) < 0:
        raise GraphError(f"Broadcast to {wanted}")
    return [broadcast(call.shape(0), tuple(wanted))]


def _filled(call: Call) -> list[Shape]:
    return [tuple(call.wholes("shape", 0) or [])]


OWN: dict[str, Rule] = {
    "Broadcast": _broadcast,
    "DFT": _fourier,
    "FakeQuantize": RULES["Sum"],
    "GRUSequence": _recurrent,
    "GroupConvolution": _grouped,
    "LSTMSequence": _recurrent,
    "Pad": _pad,
    "RDFT": _fourier,
    "RandomUniform": _filled,
    "STFT": _stft,
    "SquaredDifference": RULES["Sum"],
    "StridedSlice": _strided_slice,
}
