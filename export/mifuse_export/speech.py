"""The gate of speech as an output of the whole graph: its spectra are those that the front end makes anyway.

The network of `mifuse_runtime.vad`, with the numbers of its `vad.json`. For 3 s of audio NumPy takes 0.19 ms,
half of it for spectra; the graph 0.09.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mifuse_export.errors import ExportError
from mifuse_export.parity import Floats
from mifuse_runtime import vad
from mifuse_runtime.bundle import SPEECH

MODULE = "speech"  # its nodes stay float, as those of the front end
FILTERS = "frontend.filters"  # the front end's last matrix: a spectrum times it is mel power
_INPUT = "samples"
_END = np.iinfo(np.int64).max


def bins_of(model: nn.Module) -> list[int] | None:
    """Which bin of its spectrum each row of a front end holds (`frontend.bins`); None: it does not say.

    Bins lie 62.5 Hz apart, of frames of 32 ms whose halves are added, one every 16 ms.
    """
    bins = getattr(getattr(model, "frontend", None), "bins", None)
    return None if bins is None else [int(one) for one in bins]


def mel_node(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """What makes mel power; None: the graph has no such front end."""
    return next((node for node in graph.node if FILTERS in node.input), None)


def add_speech(graph: onnx.GraphProto, bins: Sequence[int]) -> None:
    """Add the output `speech`: log odds of speech (batch, k) of frames that lie one behind the other.

    Every second frame of the front end is one of the gate's. The last may lie over the zeros behind a clip.

    Raises:
        ExportError: the front end has no such spectrum.
    """
    mel = mel_node(graph)
    makers = {output: node for node in graph.node for output in node.output}
    turned = makers.get(mel.input[0]) if mel else None
    if turned is None or turned.op_type != "Transpose":
        raise ExportError(
            "the front end gives no spectrum (bins, frames) to its filters: leave out its `bins`"
        )
    gate = _Gate(np.array(bins))
    log_odds = gate.network(gate.log_power(turned.input[0]))
    gate.node("Squeeze", log_odds, gate.whole(1), output=SPEECH)
    graph.node.extend(gate.nodes)
    graph.initializer.extend(gate.tensors.values())
    graph.output.append(helper.make_tensor_value_info(SPEECH, TensorProto.FLOAT, ["batch", "frames"]))


class _Gate:
    """Nodes and constants of the gate."""

    def __init__(self, bins: NDArray[np.int64]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}
        self._bins = bins

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = f"{MODULE}/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name, **attributes))
        return output or name

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        name = f"{MODULE}.{name}"
        self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def whole(self, *values: int) -> str:
        name = "_".join(map(str, values)).replace(str(_END), "end")
        return self.constant(name, np.array(values, np.int64))

    def slices(self, value: str, start: int, end: int, step: int = 1) -> str:
        """Some of its frames."""
        ends = (self.whole(start), self.whole(end), self.whole(2))
        return self.node("Slice", value, *ends, *([self.whole(step)] if step > 1 else []))

    def log_power(self, squares: str) -> str:
        """As `vad.log_power`, (batch, VALUES, k), of power (rows, batch * frames)."""
        places = np.array([np.flatnonzero(self._bins == one)[0] for one in range(*vad.FINE)], np.int32)
        single = self.node("Gather", squares, self.constant("single", places), axis=0)
        often = np.bincount(self._bins)[self._bins, None]  # a bin may be there twice
        filters = self.constant("filters", (vad.bands()[self._bins] / often).astype(np.float32))
        bands = self.node("MatMul", self.node("Transpose", filters), squares)
        clips = self.node("Shape", _INPUT, start=0, end=1)
        shape = self.node("Concat", self.whole(vad.VALUES), clips, self.whole(-1), axis=0)
        both = self.node("Reshape", self.node("Concat", single, bands, axis=0), shape)
        # The first frame begins half a frame before the clip, the second is the gate's first.
        power = self.node("Transpose", self.slices(both, 1, _END, 2), perm=[1, 0, 2])
        floor = self.constant("floor", np.array(vad.POWER_FLOOR, np.float32))
        return self.node("Log", self.node("Add", power, floor))

    def network(self, values: str) -> str:
        """As `vad.network`, (batch, 1, k), of log power (batch, VALUES, k)."""
        weights, bias, now, mean, second_bias, output, output_bias = vad.layers()
        lead = max(vad.LAGS)
        known = self.before(values, lead)
        past = self.node("Concat", *(self.slices(known, lead - lag, -lag) for lag in vad.LAGS), axis=1)
        now_often = self.node("Concat", *[values] * len(vad.LAGS), axis=1)
        changes = self.node("Abs", self.node("Sub", now_often, past))
        hidden = self.layer("hidden", self.node("Concat", values, changes, axis=1), weights, bias)
        context = self.before(hidden, vad.CONTEXT - 1)
        means = self.node("AveragePool", context, kernel_shape=[vad.CONTEXT])
        both = self.node("Concat", hidden, means, axis=1)
        second = self.layer("second", both, np.concatenate([now, mean * vad.CONTEXT]), second_bias)
        return self.layer("output", second, output[:, None], output_bias[None], last=True)

    def before(self, value: str, count: int) -> str:
        """So many frames like the first before it."""
        return self.node("Pad", value, self.whole(0, 0, count, 0, 0, 0), mode="edge")

    def layer(self, name: str, value: str, weights: Floats, bias: Floats, *, last: bool = False) -> str:
        # Rows that are alike, those of a group of bins, are written once.
        rows, places = np.unique(weights, axis=0, return_inverse=True)
        kernels = self.constant(
            f"{name}.weight", (rows if len(rows) < len(weights) else weights).T[..., None]
        )
        if len(rows) < len(weights):
            kernels = self.node(
                "Gather", kernels, self.constant(f"{name}.rows", places.ravel().astype(np.int32)), axis=1
            )
        found = self.node("Conv", value, kernels, self.constant(f"{name}.bias", bias))
        return found if last else self.node("Relu", found)
