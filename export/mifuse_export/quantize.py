"""Static int8: 8-bit convolutions of the body up to the pooling, everything else float."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from mifuse_export.errors import ExportError
from mifuse_export.onnx import INPUT, OUTPUT, quiet

FRONT_END = "frontend"  # module whose nodes stay float: a logarithm's input spans 70 dB
# ONNX Runtime has integer kernels for these; each chain of them runs without leaving 8 bits.
_WEIGHTED = ("Conv", "MatMul", "Gemm")
_FOLLOWING = ("Relu", "Clip", "Add", "MaxPool", "Concat", "AveragePool", "GlobalAveragePool")


def quantize(
    source: Path, target: Path, clips: Sequence[NDArray[np.float32]], floats: Collection[str] = ()
) -> list[str]:
    """Write the int8 form of a float graph: QDQ, uint8 activations, int8 weights per channel, min-max ranges.

    Args:
        clips: samples as the device will see them, (n,) each, any length.
        floats: layers (of `layers`) that stay in float.

    Returns:
        Names of the quantised nodes.

    Raises:
        ExportError: nothing in the graph can be quantised, or there are no clips.
    """
    if not clips:
        raise ExportError("int8 needs calibration clips, there are none: pass a manifest with --calibration")
    graph = onnx.load(source)
    nodes = body(graph, floats)
    if not nodes:
        raise ExportError("the graph has no convolution after its front end: export without --int8")
    with quiet():
        quantize_static(
            source,
            target,
            _Clips(clips),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_WEIGHTED, *_FOLLOWING],
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # 7-bit weights: x86 without VNNI adds pairs of u8 x s8 products in 16 bits, where 8-bit weights
            # overflow without a word. Measured cost where VNNI is: agreement 99.4 % for 100 %, no UA.
            reduce_range=True,
        )
    quantised = onnx.load(target)
    del quantised.metadata_props[:], quantised.graph.value_info[:]
    quantised.metadata_props.extend(graph.metadata_props)
    quantised.producer_name, quantised.producer_version = graph.producer_name, graph.producer_version
    target.write_bytes(quantised.SerializeToString(deterministic=True))
    return nodes


def layers(model: onnx.ModelProto) -> list[str]:
    """Names of the weighted nodes that can be quantised, in order."""
    kinds = {node.name: node.op_type for node in model.graph.node}
    return [name for name in body(model) if kinds[name] in _WEIGHTED]


def body(model: onnx.ModelProto, floats: Collection[str] = ()) -> list[str]:
    """Names of the nodes to quantise: weighted layers behind the front end, and what links them.

    Layers in `floats` are left out, and the links behind them. The layer that makes the scores always stays
    float: it is small and its error goes straight into the answer.
    """
    graph = model.graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    inside: set[str] = set()  # values that come out of quantised nodes
    reached: set[str] = set()  # values behind the first convolution
    head = _head(model)
    chosen = []
    for node in graph.node:
        if node.name.startswith(f"{FRONT_END}/") or node.name.startswith(f"{FRONT_END}."):
            continue
        behind = any(name in reached for name in node.input)
        weighted = node.op_type in _WEIGHTED and node.name != head and any(n in weights for n in node.input)
        weighted = weighted and (node.op_type == "Conv" or behind)
        quantised = weighted and node.name not in floats and not _reads_one_channel(node, weights)
        follows = node.op_type in _FOLLOWING and any(name in inside for name in node.input)
        # A bound of Clip is no activation; an Add with a constant belongs to the pooling or to a norm.
        others = [n for n in node.input if n not in inside and node.op_type in ("Add", "Concat")]
        if quantised or (follows and not others):
            chosen.append(node.name)
            inside.update(node.output)
        if weighted or behind:
            reached.update(node.output)
    return chosen


def _reads_one_channel(node: onnx.NodeProto, weights: Mapping[str, Sequence[int]]) -> bool:
    """Whether a convolution is too thin for integer kernels: a change of type costs more than it saves."""
    return node.op_type == "Conv" and any(
        len(weights[n]) == 4 and weights[n][1] == 1 for n in node.input if n in weights
    )


def _head(model: onnx.ModelProto) -> str | None:
    """The last weighted node before the output."""
    makers = {output: node for node in model.graph.node for output in node.output}
    front = [OUTPUT]
    while front:
        node = makers.get(front.pop(0))
        if node is not None:
            if node.op_type in _WEIGHTED:
                name: str = node.name
                return name
            front.extend(node.input)
    return None


class _Clips(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, clips: Sequence[NDArray[np.float32]]) -> None:
        self._clips: Iterator[NDArray[np.float32]] = iter(clips)

    def get_next(self) -> dict[str, Any] | None:
        clip = next(self._clips, None)
        return None if clip is None else {INPUT: clip[None]}
