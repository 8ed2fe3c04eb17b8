"""Static int8: 8-bit convolutions and matrices of the body up to the scores, everything else float."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from mifuse_export.errors import ExportError
from mifuse_export.onnx import answer_of, quiet
from mifuse_export.speech import MODULE as GATE

Ranges = Mapping[str, tuple[float, float]]  # value of the graph -> lowest, highest

FRONT_END = "frontend"  # module whose nodes stay float: a logarithm's input spans 70 dB
PROSODY = "prosody"  # likewise
FLOATS = tuple(module + end for module in (FRONT_END, GATE, PROSODY) for end in "/.")
# ONNX Runtime has integer kernels for these; each chain of them runs without leaving 8 bits.
_WEIGHTED = ("Conv", "MatMul", "Gemm")
_FOLLOWING = ("Relu", "Clip", "Add", "MaxPool", "Concat", "AveragePool", "GlobalAveragePool")


THIN = 16  # weights over one channel, below which a convolution stays float


def quantize(graph: onnx.ModelProto, ranges: Ranges, floats: Collection[str] = ()) -> onnx.ModelProto:
    """The int8 form of a float graph: QDQ, uint8 activations, int8 weights per channel.

    Args:
        ranges: of the `activations`, as `calibration.observe` finds them.
        floats: layers (of `layers`) that stay in float.

    Raises:
        ExportError: nothing in the graph can be quantised.
    """
    nodes = body(graph, floats)
    if not nodes:
        raise ExportError("the graph has no convolution after its front end: export without --int8")
    spans = {name: tuple(np.array(end, np.float32) for end in span) for name, span in ranges.items()}
    with quiet():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(graph),
            per_channel=True,
            # 7-bit weights: x86 without VNNI adds pairs of u8 x s8 products in 16 bits, where 8-bit weights
            # overflow without a word. Measured cost where VNNI is: agreement 99.4 % for 100 %, no UA.
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, spans),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=[*_WEIGHTED, *_FOLLOWING],
            # What follows a matrix is float (a bias, a GELU, a norm): its sums of 32 bits go there unrounded.
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    del quantised.metadata_props[:], quantised.graph.value_info[:]
    quantised.metadata_props.extend(graph.metadata_props)
    quantised.producer_name, quantised.producer_version = graph.producer_name, graph.producer_version
    return quantised


def activations(model: onnx.ModelProto) -> list[str]:
    """Names of the values that go in and out of the nodes that can be quantised."""
    nodes, weights = body(model), {tensor.name for tensor in model.graph.initializer}
    chosen = (node for node in model.graph.node if node.name in nodes)
    names = (
        name for node in chosen for name in (*node.input, *(node.output if node.op_type != "MatMul" else ()))
    )
    return list(dict.fromkeys(name for name in names if name and name not in weights))


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
    heads = _heads(model)
    chosen = []
    for node in graph.node:
        if node.name.startswith(FLOATS):
            continue
        behind = any(name in reached for name in node.input)
        weighted = (
            node.op_type in _WEIGHTED and node.name not in heads and any(n in weights for n in node.input)
        )
        weighted = weighted and (node.op_type == "Conv" or behind)
        quantised = weighted and node.name not in floats and not _thin(node, weights)
        follows = node.op_type in _FOLLOWING and any(name in inside for name in node.input)
        # A bound of Clip is no activation; an Add with a constant belongs to the pooling or to a norm.
        others = [n for n in node.input if n not in inside and node.op_type in ("Add", "Concat")]
        if quantised or (follows and not others):
            chosen.append(node.name)
            inside.update(node.output)
        if weighted or behind:
            reached.update(node.output)
    return chosen


def _thin(node: onnx.NodeProto, weights: Mapping[str, Sequence[int]]) -> bool:
    """Whether a convolution is too thin for integer kernels: a change of type costs more than it saves.

    The first one of a student and of a wav2vec2 have one channel under 9 and 10 weights.
    """
    kernels = [weights[name][1:] for name in node.input[1:2] if name in weights]
    return node.op_type == "Conv" and any(k[0] == 1 and math.prod(k) < THIN for k in kernels)


def _heads(model: onnx.ModelProto) -> set[str]:
    """The last weighted node before each output of the answer."""
    makers = {output: node for node in model.graph.node for output in node.output}
    heads: set[str] = set()
    for output in answer_of(model.graph):
        front = [output]
        while front:
            node = makers.get(front.pop(0))
            if node is not None and node.op_type in _WEIGHTED:
                heads.add(node.name)
                break
            front.extend(node.input if node is not None else ())
    return heads
