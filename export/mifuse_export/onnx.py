"""PyTorch to ONNX: one clean float graph, waveform in, probabilities and dimensions out."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn.utils import parametrize

from mifuse_export.constants import compact
from mifuse_export.errors import ExportError
from mifuse_export.speech import add_speech, bins_of
from mifuse_export.tracing import traced
from mifuse_runtime import __version__
from mifuse_runtime.bundle import DIMENSIONS, EMBEDDING, MAX_FILE
from mifuse_runtime.dimensions import Ranges
from mifuse_runtime.graph import onnx_problem

# The opset that torch's exporter writes without a version converter in between; ONNX Runtime >= 1.14,
# onnxruntime-web and OpenVINO >= 2023 read it, and per-channel QuantizeLinear (13) is in it.
OPSET = 18
IR_VERSION = 10  # ONNX Runtime >= 1.18; the runtime asks for 1.19
INPUT, OUTPUT = "samples", "probs"
HEAD = "head"  # module that makes the scores of an embedding
# What training leaves behind when a graph is exported carelessly. A BatchNorm that follows no convolution
# cannot be folded and stays: it is a scale and a shift.
_LEFTOVERS = {"Dropout", "Identity"}


def frozen(model: nn.Module) -> nn.Module:
    """A copy on the CPU in float32 and evaluation mode; the caller's model stays as it is.

    Parametrised weights, such as those under a weight norm, become plain ones, and a model that has a method
    `standalone` becomes what it returns: the part of it that serves a device.
    """
    standalone = getattr(model, "standalone", None)
    model = copy.deepcopy(model) if standalone is None else standalone()
    model = model.cpu().float().eval().requires_grad_(False)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            weights = {name: getattr(module, name) for name in module.parametrizations}
            # Not `remove_parametrizations`: it takes them from the class, which the caller's model shares.
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, weight in weights.items():
                module.register_parameter(name, nn.Parameter(weight, requires_grad=False))
    return model


def write_onnx(
    model: nn.Module,
    path: Path,
    *,
    labels: Sequence[str],
    sample_rate: int,
    embedding: bool = False,
    dimensions: Ranges | None = None,
) -> None:
    """Trace `model` and write its graph, BatchNorm folded, with what other runtimes must know as metadata.

    A front end that says which `bins` its spectrum has gives one output more: see `speech.add_speech`.

    Args:
        model: `frozen` module with forward(samples (batch, n)) -> probabilities (batch, C), and with
            dimensions also these, from 0 to 1, (batch, V); without labels these alone.
        path: file to write.
        embedding: what the module `head` is given is an output, too, float32 (batch, D).

    Raises:
        ExportError: the model holds an operation that ONNX or a bundle does not have, fixes batch or length,
            or is larger than what the runtime loads.
    """
    outputs = [*([OUTPUT] if labels else []), *([DIMENSIONS] if dimensions else [])]
    example = torch.linspace(-0.1, 0.1, 2 * 3 * sample_rate).reshape(2, -1)
    try:
        with quiet():
            proto = traced(model, example, partial(_trace, outputs=outputs)).model_proto
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise ExportError(f"{type(model).__name__} does not export to ONNX: {_line(cause)}") from error
    tidy(proto)
    if (bins := bins_of(model)) is not None:
        add_speech(proto.graph, bins)
    compact(proto.graph)
    if embedding:
        _reveal_embedding(proto.graph, type(model).__name__)
    left = sorted(_LEFTOVERS & {node.op_type for node in proto.graph.node})
    if left:
        raise ExportError(f"the exported graph holds {', '.join(left)}: take them out of forward()")
    facts = {"labels": json.dumps(list(labels)), "sample_rate": str(sample_rate), "mifuse": __version__}
    if dimensions:
        facts |= {"dimensions": json.dumps([*dimensions]), "ranges": json.dumps([*dimensions.values()])}
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto, full_check=True)
    content = proto.SerializeToString(deterministic=True)
    if problem := onnx_problem(content):
        raise ExportError(f"a bundle may not hold the graph of {type(model).__name__}: {problem}")
    if len(content) > MAX_FILE:
        raise ExportError(
            f"the graph of {type(model).__name__} has {len(content) / 1e6:.0f} MB and the runtime loads "
            f"{MAX_FILE / 1e6:.0f} MB at most: export a smaller model"
        )
    path.write_bytes(content)


def _trace(model: nn.Module, example: torch.Tensor, outputs: Sequence[str]) -> torch.onnx.ONNXProgram:
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        optimize=False,
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},),
        input_names=[INPUT],
        output_names=list(outputs),
        verbose=False,
    )
    if program is None:  # torch's signature allows it; it does not happen with dynamo=True
        raise ExportError(f"{type(model).__name__} does not export to ONNX: the exporter wrote nothing")
    return program


def tidy(proto: onnx.ModelProto) -> None:
    """Name nodes and values after their module, drop source locations: small, readable, reproducible.

    The exporter's own names count what happened earlier in the process, and its metadata holds file paths.
    """
    graph = proto.graph
    names = {INPUT: INPUT, **{output.name: output.name for output in graph.output}}
    for i, node in enumerate(graph.node):
        scopes = next((p.value for p in node.metadata_props if p.key.endswith("name_scopes")), "[]")
        # ['', 'blocks.0', 'blocks.0.conv1', 'convolution_3']: the innermost module is the last but one.
        module = ["", *ast.literal_eval(scopes)[:-1]][-1]
        module = "" if module.startswith("_empty") else module  # sizes, which belong to no module
        node.name = f"{module}/{node.op_type}_{i}"
        for k, output in enumerate(node.output):  # short: they are half of the text of an int8 file
            names.setdefault(output, f"v{i}" if k == 0 else f"v{i}:{k}")
        _leave_out_defaults(node)
        node.doc_string = ""
        del node.metadata_props[:]
    parameters = {tensor.name for tensor in graph.initializer if "." in tensor.name}
    for i, tensor in enumerate(graph.initializer):
        names.setdefault(tensor.name, tensor.name if tensor.name in parameters else f"constant_{i}")
        tensor.name = names[tensor.name]
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.value_info[:]
    outputs = ((output, ("batch",)) for output in graph.output)
    for value, dimensions in ((graph.input[0], ("batch", "samples")), *outputs):
        for dimension, name in zip(value.type.tensor_type.shape.dim, dimensions, strict=False):
            if dimension.WhichOneof("value") == "dim_value":
                raise ExportError(f"the model fixes its {name} to {dimension.dim_value}: it must take any")
            dimension.dim_param = name
        del value.metadata_props[:]
    graph.name = "mifuse"
    graph.doc_string = proto.doc_string = ""
    proto.ir_version = IR_VERSION
    del proto.metadata_props[:]


def _reveal_embedding(graph: onnx.GraphProto, model: str) -> None:
    """Make what the head is given the last output."""
    head = next((node for node in graph.node if node.name.startswith(f"{HEAD}/")), None)
    if head is None:
        raise ExportError(f"{model} has no module `{HEAD}` that is given an embedding")
    hidden = head.input[0]
    for node in graph.node:
        node.input[:] = [EMBEDDING if name == hidden else name for name in node.input]
        node.output[:] = [EMBEDDING if name == hidden else name for name in node.output]
    kind = onnx.TensorProto.FLOAT
    graph.output.append(onnx.helper.make_tensor_value_info(EMBEDDING, kind, ["batch", "values"]))


def _leave_out_defaults(node: onnx.NodeProto) -> None:
    """Drop the attributes that say what their absence says."""
    known = onnx.defs.get_schema(node.op_type, OPSET).attributes
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    kept = [
        a
        for a in node.attribute
        if not known[a.name].default_value.type
        or onnx.helper.get_attribute_value(known[a.name].default_value) != values[a.name]
    ]
    del node.attribute[:]
    node.attribute.extend(kept)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' progress lines and warnings off the terminal; errors still come as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def answer_of(graph: onnx.GraphProto) -> list[str]:
    """The outputs that make an answer (batch, C + V) side by side: probabilities, then dimensions."""
    return [output.name for output in graph.output if output.name in (OUTPUT, DIMENSIONS)]


def session_options() -> onnxruntime.SessionOptions:
    """One thread, and no word on the terminal: what matters comes as an exception."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options
