"""The int8 models of a bundle: written, held to the gate, timed against float."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from mifuse_export import mobile, speed
from mifuse_export.calibration import Calibration, calibrate
from mifuse_export.engines import start_unsealed
from mifuse_export.errors import ExportError
from mifuse_export.gate import Int8Choice, fit
from mifuse_export.onnx import frozen, write_onnx
from mifuse_export.openvino import write_openvino
from mifuse_export.parity import Floats, Predict, Quality, compare, probabilities, rounded
from mifuse_export.qat import Rounding, roundings
from mifuse_export.quantize import layers
from mifuse_export.settings import Budget, Cost, ExportConfig
from mifuse_runtime.bundle import Bundle

# Makes of where int8 rounds a model that has learnt to live with it, and says how (JSON values).
Retrain = Callable[[Mapping[str, Rounding]], tuple[nn.Module, Mapping[str, Any]]]


@dataclass(frozen=True)
class Probe:
    """Clips on which int8 is judged, with their true classes (N,) where they are known.

    `values` are their true dimensions (N, V), from 0 to 1; NaN where a clip has none.
    """

    clips: Sequence[Floats]
    labels: NDArray[np.int64] | None = None
    values: NDArray[np.float64] | None = None


def add_int8(
    reference: Predict,
    folder: Path,
    bundle: Bundle,
    config: ExportConfig,
    *,
    calibration: Sequence[Floats],
    probe: Probe,
    retrain: Retrain | None = None,
) -> tuple[Bundle, dict[str, Any]]:
    """Write the int8 models that `bundle` names; the bundle with them, and what they lose.

    Raises:
        ExportError: no choice of layers loses less than `config.max_drop` points on the probe.
        OverBudgetError: the int8 model costs more than the budget.
    """
    found, calibrated = fit_int8(
        *(reference, folder, bundle),
        calibration=calibration,
        probe=probe,
        max_drop=config.max_drop,
        retrain=retrain,
    )
    bundle = replace(
        bundle,
        calibration=_describe(calibration, bundle.sample_rate, calibrated),
        provenance={**bundle.provenance, "int8": {**found.provenance(), "retrained": calibrated.how}},
    )
    slow = time_int8(folder, bundle, max(calibration, key=len), config.budget)
    if config.force_int8 or config.budget or not slow:
        bundle = replace(bundle, default="int8")
    return bundle, _figures(found, bundle)


def write_others(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files of other engines, engine -> file; all come from the ONNX graph."""
    source = folder / files["onnxruntime"]
    if "openvino" in files:
        write_openvino(source, folder / files["openvino"])
    if mobile.ENGINE in files:
        mobile.write_ort(source, folder / files[mobile.ENGINE])


def fit_int8(
    reference: Predict,
    folder: Path,
    bundle: Bundle,
    *,
    calibration: Sequence[Floats],
    probe: Probe,
    max_drop: float,
    retrain: Retrain | None = None,
) -> tuple[Int8Choice, Calibration]:
    """Write the int8 models of `bundle`, as many layers in 8 bits as the gate lets through.

    Raises:
        ExportError: no choice of layers loses less than `max_drop` points on the probe.
    """
    files = bundle.models["int8"]
    expected = probabilities(reference, probe.clips)

    def write(found: Calibration, floats: Sequence[str]) -> None:
        content = found.int8(floats).SerializeToString(deterministic=True)
        (folder / files["onnxruntime"]).write_bytes(content)
        write_others(folder, files)

    def measure() -> dict[str, Quality]:
        return {
            engine: compare(
                expected,
                probabilities(start_unsealed(folder, bundle, engine, "int8"), probe.clips),
                *(probe.labels, probe.values),
                dimensions=len(bundle.dimensions),
            )
            for engine in files
        }

    kept: list[tuple[Int8Choice, Calibration]] = []
    failure: ExportError | None = None
    for found in _calibrations(folder, bundle, calibration, retrain):
        try:
            fitted = fit(partial(write, found), measure, layers(found.model), max_drop)
        except ExportError as error:
            failure = error
            continue
        kept.append((fitted, found))
        if not fitted.repairs:
            break
    if not kept:
        raise failure or ExportError("nothing was tried")
    best = min(kept, key=lambda one: len(one[0].repairs))
    write(best[1], [repair.layer for repair in best[0].repairs])
    return best


def _calibrations(
    folder: Path, bundle: Bundle, clips: Sequence[Floats], retrain: Retrain | None
) -> Iterator[Calibration]:
    """Of the model as it is, then of one that was retrained for its ranges."""
    found = calibrate(onnx.load(folder / bundle.model("onnxruntime", "fp32")), clips)
    yield found
    if retrain:
        model, how = retrain(roundings(found.model, found.ranges))
        file = folder / "retrained.onnx"
        write_onnx(
            frozen(model),
            file,
            labels=bundle.labels,
            sample_rate=bundle.sample_rate,
            embedding=bundle.speaker is not None,
            dimensions=bundle.dimensions,
        )
        yield found.retrained(onnx.load(file), how)
        file.unlink()


def time_int8(folder: Path, bundle: Bundle, clip: Floats, budget: Budget | None = None) -> str | None:
    """Write `timing.json`, int8 against fp32 on one window of audio; why int8 is not worth having, or None.

    ONNX Runtime decides, the engine that a device has; times of the others are there to be read.

    Raises:
        OverBudgetError: the int8 model costs more than `budget`.
    """
    samples = np.resize(clip, (1, round(bundle.window * bundle.sample_rate)))
    speeds = {}
    for engine in bundle.models["int8"]:
        fp32, eight = (start_unsealed(folder, bundle, engine, precision) for precision in ("fp32", "int8"))
        speeds[engine] = speed.compare_speed(fp32, eight, samples)
    int8 = folder / bundle.model("onnxruntime", "int8")
    if budget:
        budget.check(Cost(int8.stat().st_size / 1000, speeds["onnxruntime"].int8_ms))
    kernels = speed.kernels(int8, samples)
    layers = list(bundle.provenance["int8"]["layers"].values())
    slow = speed.verdict(speeds["onnxruntime"], kernels, layers.count("int8"))
    content = speed.report(speeds, kernels, bundle.window, slow)
    (folder / speed.NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return slow


def _figures(found: Int8Choice, bundle: Bundle) -> dict[str, Any]:
    """What int8 loses, as bundle.json keeps it: on ONNX Runtime, and beneath it on other engines."""
    left_out = {"clips", "fp32_ua", "fp32_ccc"}
    left_out |= set() if bundle.dimensions else {"concordance", "ccc", "ccc_drop"}
    by_engine = {
        engine: {key: rounded(value) for key, value in asdict(quality).items() if key not in left_out}
        for engine, quality in found.quality.items()
    }
    first = found.quality["onnxruntime"]
    ccc = {"ccc": rounded(first.fp32_ccc)} if bundle.dimensions else {}
    return {
        "clips": first.clips,
        "fp32": {"ua": rounded(first.fp32_ua)} | ccc,
        "int8": by_engine.pop("onnxruntime") | by_engine,
    }


def _describe(clips: Sequence[Floats], sample_rate: int, found: Calibration) -> dict[str, Any]:
    """Which clips set the ranges, enough to see whether two bundles saw the same, and how."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(hashlib.sha256(clip.tobytes()).digest())
    seconds = [len(clip) / sample_rate for clip in clips]
    return {
        "clips": len(clips),
        "seconds": [round(min(seconds), 3), round(float(np.median(seconds)), 3), round(max(seconds), 3)],
        "sha256": digest.hexdigest(),
        "method": found.method,
        "mean_abs_dp": {method: rounded(error) for method, error in found.tried.items()},
    }
