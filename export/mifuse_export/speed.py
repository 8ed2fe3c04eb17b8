"""The speed gate of int8: timed against float in turns, and watched for kernels that are float after all."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mifuse_export.onnx import INPUT, session_options
from mifuse_export.parity import Floats, Predict, rounded
from mifuse_export.quantize import FLOATS

NAME = "timing.json"  # beside bundle.json and not named in it: times differ, and bundles are reproducible
ROUNDS, CALLS, WARM_UP = 20, 5, 2  # visits of each model; timed and untimed calls of a visit
SLOWER = 0.95  # times as fast as fp32, below which int8 is not the default: timing near a tie is chance
_PROFILED = 9  # runs; medians of them, for a busy machine stretches some kernel a hundredfold
_WEIGHTED = ("QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "QGemm")
_INTEGER = (*_WEIGHTED, "QLinear", "ConvInteger", "MatMulInteger")  # beginnings of operator names


@dataclass(frozen=True)
class Kernels:
    """What ONNX Runtime's profiler saw of one model."""

    layers: int  # weighted layers that ran in integer kernels
    share: float  # of the time, in integer kernels
    body_share: float  # the same of the time behind the front end, the gate of speech apart


@dataclass(frozen=True)
class Speed:
    """int8 beside fp32 on one engine: medians, ms."""

    fp32_ms: float
    int8_ms: float
    ratio: float  # how many times as fast int8 is: the median over the rounds

    def report(self) -> dict[str, float | None]:
        """What `timing.json` keeps."""
        return {key: rounded(value) for key, value in vars(self).items()}


def times(
    calls: Sequence[Predict], samples: Floats, rounds: int = ROUNDS, repeats: int = CALLS
) -> NDArray[np.float64]:
    """Seconds of each call, (models, rounds, repeats): in turns, so that a busy moment slows them all."""
    spent = np.zeros((len(calls), rounds, repeats))
    for i in range(rounds):
        for call, row in zip(calls, spent[:, i], strict=True):
            for k in range(-WARM_UP, repeats):
                start = time.perf_counter()
                call(samples)
                if k >= 0:
                    row[k] = time.perf_counter() - start
    return spent


def compare_speed(fp32: Predict, int8: Predict, samples: Floats) -> Speed:
    """Time two models on samples (batch, n)."""
    visits = 1e3 * np.median(times([fp32, int8], samples), axis=2)
    before, after = np.median(visits, axis=1)
    return Speed(float(before), float(after), float(np.median(visits[0] / visits[1])))


def kernels(model: Path, samples: Floats) -> Kernels:
    """Profile an ONNX file on samples (batch, n), one thread.

    Layers whose 8-bit weights become float again when the graph is loaded show up here, and only here.
    """
    options = session_options()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        for _ in range(_PROFILED):
            session.run(None, {INPUT: samples})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["name"], event["args"]["op_name"]].append(event["dur"])
    medians = {key: float(np.median(runs)) for key, runs in spent.items()}
    integer = {key: ms for key, ms in medians.items() if key[1].startswith(_INTEGER)}
    body = sum(ms for (name, _), ms in medians.items() if not name.startswith(FLOATS))
    total = sum(medians.values())
    return Kernels(
        layers=sum(kind in _WEIGHTED for _, kind in integer),
        share=sum(integer.values()) / max(total, 1e-9),
        body_share=sum(integer.values()) / max(body, 1e-9),
    )


def verdict(speed: Speed, found: Kernels, layers: int) -> str | None:
    """Why int8 is not worth having, or None: `layers` of it should be integer, and it not be slower."""
    if found.layers < layers:
        return f"only {found.layers} of {layers} 8-bit layers run in integer kernels"
    if not speed.ratio > SLOWER:
        return f"int8 is slower than fp32 here: {speed.int8_ms:.3g} ms, fp32 {speed.fp32_ms:.3g} ms"
    return None


def report(speeds: Mapping[str, Speed], found: Kernels, seconds: float, slow: str | None) -> dict[str, Any]:
    """The content of `timing.json`."""
    return {
        "system": f"{platform.system()} {platform.machine()}, onnxruntime {version('onnxruntime')}",
        "seconds": seconds,
        **{engine: speed.report() for engine, speed in speeds.items()},
        "integer": {
            "layers": found.layers,
            "share": rounded(found.share),
            "body_share": rounded(found.body_share),
        },
        "verdict": slow,
    }
