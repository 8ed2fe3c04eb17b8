"""How far a bundle's graph is from what this core can do: operations and bytes of each part against ceilings.

    python -m benchmarks.roofline [BUNDLE] [--seconds 3] [--out FILE.json]

The ceilings are measured here, on one thread, with the same engine: products of large matrices in float and
in int8, and copies that stay in the cache. A part takes as long as its operations or its bytes ask for,
whichever is more; the bound is the sum, as parts follow each other. What counts as a part is the kind of its
operator and of its numbers; every other operator moves bytes alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from benchmarks.provenance import provenance
from mifuse.exporting.bench import machine, voice
from mifuse.files import whole_file
from mifuse_runtime import Recognizer
from mifuse_runtime.bundle import load
from mifuse_runtime.settings import FrontEnd

DEMO = Path(__file__).resolve().parents[1] / "runtime" / "demo" / "mifuse_demo" / "bundle"
PRODUCTS = {"Conv", "MatMul", "Gemm"}
FREE = {"Constant", "Shape", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}  # no number is touched
QUANTIZING = {"QuantizeLinear", "DequantizeLinear"}  # fused with their neighbours
SIZE = 512  # of matrices


@dataclass
class Part:
    """Operators of one kind."""

    operators: int = 0
    mmacs: float = 0.0  # millions of multiply-adds
    kb: float = 0.0  # read and written
    bound_ms: float = 0.0


@dataclass(frozen=True)
class Ceilings:
    """Of one core."""

    float_gmacs: float  # thousand million multiply-adds a second
    int8_gmacs: float
    cache_gb: float  # a second, read and written
    fft_us: float  # a frame


def fastest(call: Callable[[], object], seconds: float = 0.3) -> float:
    """Seconds of the fastest of the calls that fit; other programs only ever make a call longer."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    call()
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def ceilings(seconds: float = 0.3) -> Ceilings:
    """Measured now, here, on one thread."""
    rng, macs = np.random.default_rng(0), SIZE**3 / 1e9
    floats = rng.standard_normal((2, SIZE, SIZE)).astype(np.float32)
    one = _session(
        [helper.make_node("MatMul", ["a", "b"], ["y"])], TensorProto.FLOAT, floats[1], TensorProto.FLOAT
    )
    whole = rng.integers(-64, 64, (SIZE, SIZE)).astype(np.int8)
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    other = _session([node], TensorProto.UINT8, whole, TensorProto.INT32)
    unsigned = rng.integers(0, 255, (SIZE, SIZE)).astype(np.uint8)
    source, target = np.ones(32_768, np.float32), np.empty(32_768, np.float32)  # 128 kB each: they stay in L2
    frames = rng.standard_normal((256, 512))
    return Ceilings(
        macs / fastest(lambda: one.run(None, {"a": floats[0]}), seconds),
        macs / fastest(lambda: other.run(None, {"a": unsigned}), seconds),
        2 * source.nbytes / 1e9 / fastest(lambda: np.copyto(target, source), seconds),
        1e6 * fastest(lambda: np.fft.rfft(frames), seconds) / len(frames),
    )


def _session(
    nodes: list[onnx.NodeProto], given: int, weights: Any, found: int
) -> onnxruntime.InferenceSession:
    inputs = [helper.make_tensor_value_info("a", given, [SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info("y", found, [SIZE, SIZE])]
    graph = helper.make_graph(nodes, "one", inputs, outputs, [onnx.numpy_helper.from_array(weights, "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return start(model.SerializeToString())


def start(model: bytes, level: str = "ORT_ENABLE_ALL") -> onnxruntime.InferenceSession:
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def shapes(model: onnx.ModelProto, samples: np.ndarray[Any, Any]) -> dict[str, tuple[int, ...]]:
    """Of every tensor, by running the graph with all of them as outputs."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    kept = {output.name for output in wide.graph.output}
    names = [name for node in wide.graph.node for name in node.output if name and name not in kept]
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = start(wide.SerializeToString(), "ORT_DISABLE_ALL")
    order = [output.name for output in session.get_outputs()]
    values = session.run(order, {session.get_inputs()[0].name: samples})
    found = {name: np.shape(value) for name, value in zip(order, values, strict=True)}
    found |= {weights.name: tuple(weights.dims) for weights in wide.graph.initializer}
    return found | {session.get_inputs()[0].name: samples.shape}


def parts(model: onnx.ModelProto, samples: np.ndarray[Any, Any]) -> dict[str, Part]:
    """Multiply-adds and bytes of the graph, by kind of operator and number."""
    known = shapes(model, samples)
    size = {name: int(np.prod(shape)) for name, shape in known.items()}
    maker = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, Part] = {}
    for node in model.graph.node:
        if node.op_type in FREE | QUANTIZING:
            continue
        small = bool(node.input) and getattr(maker.get(node.input[0]), "op_type", "") == "DequantizeLinear"
        product = node.op_type in PRODUCTS
        kind = f"{node.op_type if product else 'other'}, {'int8' if small else 'float'}"
        part = found.setdefault(kind, Part())
        part.operators += 1
        part.kb += (1 if small else 4) * sum(size.get(name, 0) for name in (*node.input, *node.output)) / 1000
        if product:
            part.mmacs += size[node.output[0]] * _depth(node, known) / 1e6
    return found


def _depth(node: onnx.NodeProto, known: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-adds behind one number of the output."""
    weights = known[node.input[1]]
    return int(np.prod(weights[1:])) if node.op_type == "Conv" else known[node.input[0]][-1]


def bound(found: dict[str, Part], limits: Ceilings) -> float:
    """Fill in the bound of each part, and give their sum, ms."""
    for kind, part in found.items():
        peak = limits.int8_gmacs if kind.endswith("int8") else limits.float_gmacs
        part.bound_ms = max(part.mmacs / peak, part.kb / 1000 / limits.cache_gb)
    return sum(part.bound_ms for part in found.values())


def table(document: Mapping[str, Any]) -> str:
    """The parts, the bound and what was taken, as Markdown."""
    limits, told = Ceilings(**document["ceilings"]), document["provenance"]
    bound_ms, taken, public = (document[name] for name in ("bound_ms", "taken_ms", "predict_ms"))
    lines = [
        f"`python -m benchmarks.roofline`, {told['date']}, commit {told['commit'][:8]}, "
        f"{document['machine']['cpu']}.",
        f"Ceilings of one core, million multiply-adds a ms: float {limits.float_gmacs:.0f}, int8 "
        f"{limits.int8_gmacs:.0f}; {limits.cache_gb:.0f} GB a second within the cache.",
        "",
        f"| {document['file']}, {document['seconds']:g} s | operators | million multiply-adds | kB "
        "| bound, ms |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind, row in sorted(document["parts"].items(), key=lambda item: -float(item[1]["bound_ms"])):
        part = Part(**row)
        lines.append(
            f"| {kind} | {part.operators} | {part.mmacs:.2f} | {part.kb:.0f} | {part.bound_ms:.3f} |"
        )
    lines += [
        "",
        f"Bound {bound_ms:.3f} ms; fastest run of the graph {taken:.3f} ms, {taken / bound_ms:.1f} times;",
        f"fastest `predict` {public:.3f} ms, {public / bound_ms:.1f} times. "
        f"NumPy's FFT of as many frames: {document['fft_ms']:.3f} ms.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?", default=DEMO, help="(the ready one)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of audio (3)")
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    content = load(arguments.bundle)
    file = arguments.bundle / content.models[content.default]["onnxruntime"]
    samples = voice(arguments.seconds, content.sample_rate)[None]
    limits = ceilings()
    found = parts(onnx.load(file), samples)
    limit = bound(found, limits)
    session = start(file.read_bytes())
    name = session.get_inputs()[0].name
    taken = 1000 * fastest(lambda: session.run(None, {name: samples}), 1.0)
    recognizer = Recognizer.load(arguments.bundle)
    public = 1000 * fastest(lambda: recognizer.predict(samples[0]), 1.0)
    document = {"provenance": provenance(), "machine": asdict(machine()), "ceilings": asdict(limits)} | {
        "file": file.name,
        "seconds": arguments.seconds,
        "parts": {kind: asdict(part) for kind, part in found.items()},
        "bound_ms": limit,
        "taken_ms": taken,
        "predict_ms": public,
        "fft_ms": limits.fft_us * (samples.size // FrontEnd().hop + 1) / 1000,
    }
    sys.stdout.write(table(document) + "\n")
    if arguments.out:
        with whole_file(arguments.out) as part:
            part.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
