"""Constants that a graph makes itself when it is loaded: DFT matrices and mel filters are not in the file.

Both are recognised by their values, whoever made them; a matrix that the nodes would not make stays as it
is. Engines fold the nodes away when they load the graph, so that it runs as before. Integers and look-ups
alone: no engine's cosine is asked, and all of them make the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_SMALL = 1 << 13  # bytes: below that a constant is not worth nodes
_PERIODS = range(
    4, 4097, 4
)  # samples of one turn that are looked for; a quarter of it turns a sine into a cosine
_ROUNDING = 2.0**-25  # half a unit in the last place of float32 at 0.5 to 1
_BAND = 4  # neighbouring values of a row of mel filters, at most


@dataclass
class _Maker:
    """Nodes and small constants that make `name`, a float32 matrix."""

    name: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        """A constant under a name that says what it holds, so that makers can share it."""
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, *inputs: str, last: bool = False, **attributes: int) -> str:
        output = self.name if last else f"{self.name}/{kind}"
        made = helper.make_node(kind, inputs, [output], name=f"{self.name}/{kind}")
        made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(made)
        return output

    def size(self) -> int:
        """Bytes in the file."""
        return int(onnx.GraphProto(node=self.nodes, initializer=self.tensors).ByteSize())


def compact(graph: onnx.GraphProto) -> None:
    """Replace the large constants of `graph` that a few nodes can make by these nodes."""
    nodes: list[onnx.NodeProto] = []
    kept: dict[str, onnx.TensorProto] = {}
    periods: list[int] = []
    # The longest DFT first: the others find their cosines in its table.
    for tensor in sorted(graph.initializer, key=onnx.TensorProto.ByteSize, reverse=True):
        maker = _maker(tensor, periods)
        if maker is None:
            kept[tensor.name] = tensor
        else:
            nodes += maker.nodes
            kept |= {part.name: part for part in maker.tensors}
    if nodes:
        nodes += graph.node
        tensors = list(kept.values())
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend(tensors)


def _maker(tensor: onnx.TensorProto, periods: list[int]) -> _Maker | None:
    if len(tensor.dims) < 2 or tensor.data_type != onnx.TensorProto.FLOAT or tensor.ByteSize() < _SMALL:
        return None
    matrix = numpy_helper.to_array(tensor)
    found = _dft(tensor.name, matrix, periods) or _band(tensor.name, matrix)
    return found if found and found.size() < tensor.ByteSize() // 2 else None


def _dft(name: str, matrix: NDArray[np.float32], periods: list[int]) -> _Maker | None:
    """Of [cos(2π m k / N) | sin(2π m k / N)], (..., n, 2 k), m growing evenly with n: a table of N cosines.

    Two of them above one another, real and imaginary parts, are found as well.

    Args:
        periods: N of the tables that are there, tried first; a new one is added.
    """
    rows = matrix.shape[-2]
    return _turns(name, matrix, rows, periods) or _turns(name, matrix, rows // 2, periods)


def _turns(name: str, matrix: NDArray[np.float32], rows: int, periods: list[int]) -> _Maker | None:
    """`_dft` of parts of `rows` rows.

    Zeros become zeros: where the product of m and k is large, a float64 cosine is off by up to 1e-13 there.
    """
    columns = matrix.shape[-1]
    if rows < 2 or matrix.shape[-2] % rows or columns % 2:
        return None
    parts = matrix.reshape(-1, rows, columns)[:, :2].astype(np.float64)
    cosines, sines = np.split(parts, 2, axis=-1)
    turns = np.arctan2(sines, cosines) / (2 * np.pi)
    turns[:, 1] -= turns[:, 0]  # where each column begins, and its step from row to row
    fits = (n for n in (*periods, *_PERIODS) if np.abs(turns * n - np.round(turns * n)).max() < 1e-4)
    period = next(fits, None)
    if period is None:
        return None
    whole = np.round(turns * period).astype(np.int32) % period
    starts, steps = whole[:, 0, None, None], whole[:, 1, None, None]  # (parts, 1, 1, k)
    steps = steps[:1] if (steps == steps[:1]).all() else steps
    first, quarter = np.arange(rows, dtype=np.int32)[:, None, None], np.array([[0], [period // 4]], np.int32)
    table = np.cos(2 * np.pi * np.arange(period) / period).astype(np.float32)
    table[[period // 4, 3 * period // 4]] = 0
    places = (first * steps + starts - quarter) % period
    if not np.abs(table[places].reshape(matrix.shape) - matrix).max() <= _ROUNDING:
        return None
    periods.append(period)
    make = _Maker(name)
    place = make.node(
        "Mul",
        make.constant(f"frontend/rows_{rows}", first),
        make.constant(f"{name}/steps", steps),
    )
    place = make.node("Add", place, make.constant(f"{name}/starts", starts))
    place = make.node("Sub", place, make.constant(f"frontend/quarter_{period}", quarter))
    place = make.node("Mod", place, make.constant(f"frontend/period_{period}", np.array(period, np.int32)))
    values = make.node("Gather", make.constant(f"frontend/cosines_{period}", table), place)
    make.node("Reshape", values, make.constant(f"{name}/shape", np.array(matrix.shape, np.int64)), last=True)
    return make


def _band(name: str, matrix: NDArray[np.float32]) -> _Maker | None:
    """Of a matrix whose rows hold a few neighbouring values each: where they begin, and the values."""
    if matrix.ndim != 2:
        return None
    columns = matrix.shape[1]
    filled = matrix != 0
    first = np.where(filled.any(axis=1), filled.argmax(axis=1), 0).astype(np.int32)
    width = int((columns - filled[:, ::-1].argmax(axis=1) - first)[filled.any(axis=1)].max(initial=0))
    if not 0 < width <= _BAND or not np.isfinite(matrix).all():
        return None
    padded = np.pad(matrix, ((0, 0), (0, width)))
    values = padded[np.arange(len(matrix))[:, None], first[:, None] + np.arange(width)]
    places = np.arange(columns, dtype=np.int32)[:, None] - np.arange(width, dtype=np.int32)
    make = _Maker(name)
    here = make.node(
        "Equal",
        make.constant(f"{name}/first", first[:, None, None]),
        make.constant(f"{name}/places", places[None]),
    )
    here = make.node("Cast", here, to=onnx.TensorProto.FLOAT)
    here = make.node("Mul", here, make.constant(f"{name}/values", values[:, None]))
    make.node(
        "ReduceSum", here, make.constant("frontend/last", np.array([-1], np.int64)), last=True, keepdims=0
    )
    return make
