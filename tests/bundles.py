"""Tiny bundles for tests: a real graph of a few operators, whose answer depends on level and pitch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mifuse_runtime import bundle as bundles
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.settings import FrontEnd, Settings

LABELS = ("angry", "happy", "neutral", "sad")
RATE = 16_000


def make_bundle(
    folder: Path,
    labels: Sequence[str] = LABELS,
    precisions: Sequence[str] = ("fp32",),
    openvino: bool = False,
    settings: Settings = Settings(voice=0.0),  # noqa: B008, it is frozen
    split: bool = False,
    dimensions: Mapping[str, tuple[float, float]] | None = None,
) -> Path:
    """Write a bundle into `folder` (made if needed) and return it; the default precision is the last one.

    Its gate lets everything pass that is loud enough: most tests are on tones.
    `split` adds a body graph for ONNX Runtime; it is not cut from the model, which is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models: dict[str, dict[str, str]] = {}
    for precision in precisions:
        stem = "model" if precision == "fp32" else f"model.{precision}"
        scale = 1.0 if precision == "fp32" else 0.98
        (folder / f"{stem}.onnx").write_bytes(graph(len(labels), scale, len(dimensions or {})))
        models[precision] = {"onnxruntime": f"{stem}.onnx"}
        if openvino:
            import openvino as ov

            (folder / "openvino").mkdir(exist_ok=True)
            model = ov.Core().read_model(folder / f"{stem}.onnx")
            ov.save_model(model, folder / "openvino" / f"{stem}.xml", compress_to_fp16=False)
            models[precision]["openvino"] = f"openvino/{stem}.xml"
    if split:
        (folder / "body.onnx").write_bytes(body(len(labels)))
    files = {
        path.relative_to(folder).as_posix(): bundles.sha256(path)
        for path in sorted([*folder.rglob("model*"), *folder.rglob("body*")])
        if path.is_file()
    }
    bundle = Bundle(
        labels=tuple(labels),
        output="probs" if labels else "dimensions",
        dimensions=dimensions or {},
        default=precisions[-1],
        models=models,
        files=files,
        stream=settings,
        bodies={precision: {"onnxruntime": "body.onnx"} for precision in precisions if split},
        quality={"clips": 3, "fp32": {"ua": 50.0}},
        provenance={"student": "hand-made"},
    )
    (folder / bundles.NAME).write_text(bundle.to_json())
    return folder


def weights(classes: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (2, classes) and bias of the graph's last layer."""
    angles = 2 * np.pi * np.arange(classes) / classes
    matrix = 0.4 * scale * np.stack([np.cos(angles), np.sin(angles)])
    return matrix.astype(np.float32), np.linspace(0, 0.5, classes, dtype=np.float32)


def expected(samples: np.ndarray, classes: int = 4) -> np.ndarray:
    """What the graph gives for 1-D samples at 16 kHz, by NumPy."""
    step = np.diff(np.pad(samples.astype(np.float64), 1))
    power = np.array([np.mean(samples.astype(np.float64) ** 2), np.mean(step**2)])
    matrix, bias = weights(classes)
    logits = np.log(power + 1e-6) @ matrix + bias
    share = np.exp(logits - logits.max())
    return share / share.sum()


def graph(classes: int = 4, scale: float = 1.0, dimensions: int = 0) -> bytes:
    """ONNX: log power of the samples and of their differences, a dense layer, softmax; sigmoid beside.

    Without classes the sigmoid alone.
    """
    from onnx import TensorProto, helper, numpy_helper

    matrix, bias = weights(max(2, classes), scale)
    constants = {
        "one": np.array([0, 1, 0, 1], np.int64),
        "start": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
        "end": np.array([2**31], np.int64),
        "axis": np.array([1], np.int64),
        "floor": np.array([1e-6], np.float32),
        "matrix": matrix,
        "bias": bias,
    }
    node = helper.make_node
    nodes = [
        node("Pad", ["samples", "one"], ["padded"]),
        node("Slice", ["padded", "second", "end", "axis"], ["right"]),
        node("Slice", ["padded", "start", "last", "axis"], ["left"]),
        node("Sub", ["right", "left"], ["steps"]),
        node("Mul", ["samples", "samples"], ["square"]),
        node("Mul", ["steps", "steps"], ["step_square"]),
        node("ReduceMean", ["square", "axis"], ["level"], keepdims=1),
        node("ReduceMean", ["step_square", "axis"], ["pitch"], keepdims=1),
        node("Concat", ["level", "pitch"], ["power"], axis=1),
        node("Add", ["power", "floor"], ["floored"]),
        node("Log", ["floored"], ["features"]),
        node("Gemm", ["features", "matrix", "bias"], ["logits"]),
        node("Softmax", ["logits"], ["probs"], axis=-1),
    ]
    value = helper.make_tensor_value_info
    outputs = [value("probs", TensorProto.FLOAT, ["batch", classes])] if classes else []
    nodes = nodes if classes else nodes[:-2]
    if dimensions:
        constants["second_matrix"], constants["second_bias"] = weights(dimensions, scale)
        nodes += [
            node("Gemm", ["features", "second_matrix", "second_bias"], ["values"]),
            node("Sigmoid", ["values"], ["dimensions"]),
        ]
        outputs.append(value("dimensions", TensorProto.FLOAT, ["batch", dimensions]))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [value("samples", TensorProto.FLOAT, ["batch", "samples"])],
            outputs,
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return model.SerializeToString()


def body(classes: int = 4) -> bytes:
    """ONNX behind mel power (batch, frames, mels): log of the power below and above, dense layer, softmax."""
    from onnx import TensorProto, helper, numpy_helper

    matrix, bias = weights(classes)
    constants = {
        "time": np.array([1], np.int64),
        "halves": np.repeat(np.eye(2, dtype=np.float32), FrontEnd().mels // 2, axis=0),
        "floor": np.array([1e-9], np.float32),
        "matrix": matrix,
        "bias": bias,
    }
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("ReduceMean", ["power", "time"], ["mean"], keepdims=0),
        node("MatMul", ["mean", "halves"], ["level"]),
        node("Add", ["level", "floor"], ["floored"]),
        node("Log", ["floored"], ["features"]),
        node("Gemm", ["features", "matrix", "bias"], ["logits"]),
        node("Softmax", ["logits"], ["probs"], axis=-1),
    ]
    inputs = [value("power", TensorProto.FLOAT, ["batch", "frames", FrontEnd().mels])]
    outputs = [value("probs", TensorProto.FLOAT, ["batch", classes])]
    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    made = helper.make_graph(nodes, "body", inputs, outputs, initial)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(made, opset_imports=opset, ir_version=9).SerializeToString()


def tone(seconds: float = 1.0, hertz: float = 440.0, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    """A sine, float32 (n,)."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def speech(seconds: float, rate: int = RATE, pitch: float = 140.0, seed: int = 0) -> np.ndarray:
    """Voice-like harmonics in syllables, with pauses of digital silence, float32 (n,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time))) / rate
    partials = min(40, int(0.45 * min(rate, RATE) / (1.2 * pitch)))
    voice = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, partials + 1))
    syllables = np.maximum(0, np.sin(2 * np.pi * 2.5 * time)) * (np.sin(2 * np.pi * 0.4 * time + seed) > -0.4)
    return (0.2 * voice * syllables).astype(np.float32)
