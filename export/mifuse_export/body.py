"""The body of a model as a graph of its own: mel power in, probabilities out, cut from the whole graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mifuse_export.errors import ExportError
from mifuse_export.onnx import INPUT
from mifuse_export.parity import PARITY, Floats, parity_batches
from mifuse_export.speech import mel_node
from mifuse_runtime import engines
from mifuse_runtime.bundle import POWER, SPEECH, Bundle
from mifuse_runtime.settings import FrontEnd

ROUNDING = (
    1e-2  # largest |Δp| of int8: what lies between two levels may fall to either; up to 0.0011 was seen
)
_SHAPE = "samples_shape"


def write_bodies(
    folder: Path, models: Mapping[tuple[str, str], str], frontend: FrontEnd
) -> dict[str, dict[str, str]]:
    """Write the body of each (precision, engine) model in `folder` beside it; precision -> engine -> file.

    Raises:
        ExportError: a graph has no such front end.
    """
    bodies: dict[str, dict[str, str]] = {}
    for (precision, engine), name in sorted(models.items()):  # the ONNX file of a precision comes first
        body = Path(name).with_name(Path(name).name.replace("model", "body")).as_posix()
        if engine == "openvino":
            from mifuse_export.openvino import write_openvino

            write_openvino(folder / bodies[precision]["onnxruntime"], folder / body)
        else:
            write_body(folder / name, folder / body, frontend)
        bodies.setdefault(precision, {})[engine] = body
    return bodies


def check_bodies(folder: Path, bundle: Bundle, clips: Sequence[Floats]) -> float:
    """Run every body behind the device's front end beside its whole model; the largest |Δp|.

    Raises:
        ExportError: it is above `PARITY`, or in int8 above `ROUNDING`.
    """
    worst = 0.0
    for precision, files in bundle.bodies.items():
        for engine, name in files.items():
            whole, body = (
                engines.start(folder, bundle, engine, precision, 1, body=cut) for cut in (False, True)
            )
            front = body.graph.front
            assert front is not None
            for batch in parity_batches(clips, bundle.sample_rate):
                power = np.stack([front.clip(samples) for samples in batch])
                difference = float(np.abs(whole(batch) - body(power)).max())
                if not difference <= (PARITY if precision == "fp32" else ROUNDING):  # NaN fails too
                    raise ExportError(
                        f"{name} differs from its whole model by {difference:.2g} on input {batch.shape}: "
                        f"check that {bundle.frontend} is the model's front end"
                    )
                worst = max(worst, difference)
    return worst


def write_body(source: Path, target: Path, frontend: FrontEnd) -> None:
    """Cut the graph `source` behind its mel power and write what follows, with the same weights and ranges.

    The input becomes `power`, float32 (batch, frames, columns). What `source` computes from the number of
    samples, the body computes from that of the hops, which is one less than that of the frames.

    Raises:
        ExportError: the graph has no such front end, or goes around it.
    """
    model = onnx.load(source)
    graph = model.graph
    cut = _cut(graph, frontend)
    outputs = [output for output in graph.output if output.name != SPEECH]  # its spectra are not there
    needed, kept = {output.name for output in outputs}, []
    for node in reversed(graph.node):
        if node is not cut and needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    kept.reverse()
    readers = [node for node in kept if INPUT in node.input]
    if cut is None or any(node.op_type != "Shape" for node in readers):
        raise ExportError(f"{source.name} is not a front end and a body: leave out `frontend`")
    for node in kept:
        node.input[:] = [POWER if name == cut.output[0] else name for name in node.input]
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    sizes = [
        helper.make_node("Shape", [POWER], ["power_shape"], "power_shape", end=2),
        helper.make_node("Sub", ["power_shape", "one_frame"], ["hops"], "hops"),
        helper.make_node("Mul", ["hops", "hop"], [_SHAPE], _SHAPE),
    ]
    numbers = {"one_frame": [0, 1], "hop": [1, frontend.hop]}
    for node in readers:
        ends = {"start": 0, "end": 2} | {attribute.name: attribute.i for attribute in node.attribute}
        names = [f"{node.name}:{end}" for end in ends]
        numbers |= {name: [value] for name, value in zip(names, ends.values(), strict=True)}
        node.CopyFrom(helper.make_node("Slice", [_SHAPE, *names], node.output, node.name))
    constants += [
        numpy_helper.from_array(np.array(values, np.int64), name) for name, values in numbers.items()
    ]
    power = helper.make_tensor_value_info(POWER, TensorProto.FLOAT, ["batch", "frames", frontend.columns])
    body = helper.make_graph([*sizes, *kept], graph.name, [power], outputs, constants)
    model.graph.CopyFrom(body)
    onnx.checker.check_model(model, full_check=True)
    target.write_bytes(model.SerializeToString(deterministic=True))


def _cut(graph: onnx.GraphProto, frontend: FrontEnd) -> onnx.NodeProto | None:
    """The last node of the front end: what makes mel power, or what puts the lowest bins behind it."""
    cut = mel_node(graph)
    for kind in ("Reshape", "Concat") if frontend.lowest else ():
        cut = next(
            (node for node in graph.node if cut and node.op_type == kind and cut.output[0] in node.input),
            None,
        )
    return cut
