"""The whole way from a PyTorch model to a verified bundle; a failure leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

import mifuse_runtime
from mifuse_export import card, engines, mobile, speed
from mifuse_export.arguments import check_clips, check_formats
from mifuse_export.body import check_bodies, write_bodies
from mifuse_export.budget import Budget, Cost
from mifuse_export.calibration import Calibration, calibrate
from mifuse_export.errors import ExportError
from mifuse_export.folder import new_folder
from mifuse_export.gate import Int8Choice, fit
from mifuse_export.onnx import frozen, write_onnx
from mifuse_export.openvino import write_openvino
from mifuse_export.parity import (
    PARITIES,
    Floats,
    Predict,
    Quality,
    check_parity,
    compare,
    probabilities,
    rounded,
    torch_predict,
)
from mifuse_export.qat import Rounding, roundings
from mifuse_export.quantize import layers
from mifuse_export.signing import signer
from mifuse_export.thresholds import stream_settings
from mifuse_runtime import bundle as bundles
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.settings import FrontEnd

FORMATS = {"onnx": "onnxruntime", "openvino": "openvino", "ort": mobile.ENGINE}  # -> engine that reads it
_MODELS = {
    ("fp32", "onnxruntime"): "model.onnx",
    ("int8", "onnxruntime"): "model.int8.onnx",
    ("fp32", "openvino"): "openvino/model.xml",
    ("fp16", "openvino"): "openvino/model.fp16.xml",
    ("int8", "openvino"): "openvino/model.int8.xml",
    ("fp32", mobile.ENGINE): "mobile/model.ort",
    ("int8", mobile.ENGINE): "mobile/model.int8.ort",
}
_SPEAKER = "speaker.npy"


# Makes of where int8 rounds a model that has learnt to live with it, and says how (JSON values).
Retrain = Callable[[Mapping[str, Rounding]], tuple[nn.Module, Mapping[str, Any]]]


@dataclass(frozen=True)
class Probe:
    """Clips on which int8 is judged, with their true classes (N,) where they are known."""

    clips: Sequence[Floats]
    labels: NDArray[np.int64] | None = None


def export_bundle(
    model: nn.Module,
    out: Path,
    *,
    labels: Sequence[str],
    sample_rate: int = 16_000,
    window: float = 3.0,
    calibration: Sequence[Floats] = (),
    int8: bool = False,
    fp16: bool = False,
    formats: Sequence[str] = ("onnx",),
    max_drop: float = 0.5,
    force_int8: bool = False,
    probe: Probe | None = None,
    budget: Budget | None = None,
    retrain: Retrain | None = None,
    frontend: FrontEnd | None = None,
    speaker: Floats | None = None,
    provenance: Mapping[str, Any] | None = None,
    sign: Path | None = None,
    force: bool = False,
) -> Path:
    """Write the bundle `out` of `model`, every file of it checked against the model.

    Args:
        model: forward(samples (batch, n)) -> probabilities (batch, C).
        calibration: real clips, (n,) float32 at `sample_rate`, as the device will see them. They set the
            ranges of int8 and the thresholds of streams, and are part of the parity check.
        fp16: write an OpenVINO model with weights of two bytes; it has no body, streams run it whole.
        formats: `onnx` is always written; `openvino` and `ort` (ONNX Runtime Mobile) beside it.
        max_drop: what int8 may lose, points of accuracy (see `Quality.failure`).
        force_int8: int8 is the default precision even where ONNX Runtime is slower with it, or not integer.
        probe: clips that int8 is judged on; None: the calibration clips.
        budget: what the int8 ONNX model may cost; it is then the default even where it is not faster.
        retrain: asked for a model trained with int8's rounding when int8 in every layer fails the gate. Int8
            is of whichever model can have more layers in it; fp32, and what int8 is held against, is `model`.
        frontend: the numbers of the model's log-mel front end; the bundle then holds what follows it, too,
            as graphs that a stream runs on frames that it has computed once. None: it has another one.
        speaker: (C, D + 1) weights and bias of the head for speakers whom the device gets to know: it takes
            what the model's module `head` is given, and mean and deviation of each mel bin of `frontend`, as
            z-scores within the speaker (see `mifuse_runtime.speaker`). None: the device knows nobody.
        provenance: what is known of the model's making, JSON values.
        sign: PEM file of a private key that signs the bundle; None leaves it unsigned.
        force: replace an existing bundle.

    Returns:
        `out`.

    Raises:
        ExportError: bad arguments, a graph that differs from the model, or an int8 model that loses too much.
        OverBudgetError: the int8 model costs more than `budget`.
        OSError: `out` cannot be written.
    """
    check_formats(formats, FORMATS, int8=int8, fp16=fp16, budget=budget)
    check_clips(calibration, needed=int8)
    check_clips(probe.clips if probe else (), needed=False)
    if speaker is not None and not frontend:
        raise ExportError("a head for known speakers needs the spectrum of a front end: give `frontend`, too")
    seal = signer(sign) if sign else None
    model = frozen(model)
    reference = torch_predict(model)
    wanted = {
        (precision, engine): name
        for (precision, engine), name in _MODELS.items()
        if {"fp32": True, "fp16": fp16, "int8": int8}[precision]
        and engine in ("onnxruntime", *(FORMATS[name] for name in formats))
    }
    with new_folder(Path(out), force) as folder:
        models = _nested(wanted)
        file = folder / models["fp32"]["onnxruntime"]
        known = speaker is not None
        write_onnx(model, file, labels=labels, sample_rate=sample_rate, embedding=known)
        write_others(folder, models["fp32"])
        if fp16:
            write_openvino(file, folder / models["fp16"]["openvino"], half=True)
        bundle = Bundle(
            labels=tuple(labels),
            sample_rate=sample_rate,
            window=window,
            default="fp32",
            models=models,
            files={},
            speaker=_SPEAKER if known else None,
            provenance={**(provenance or {}), "versions": _versions("openvino" in formats)},
        )
        quality = _parity(reference, folder, bundle, calibration)
        if int8:
            found, calibrated = fit_int8(
                reference,
                folder,
                bundle,
                calibration=calibration,
                probe=probe or Probe(calibration),
                max_drop=max_drop,
                retrain=retrain,
            )
            quality = _figures(found) | quality
            bundle = replace(
                bundle,
                calibration=_describe(calibration, sample_rate, calibrated),
                provenance={
                    **bundle.provenance,
                    "int8": {**found.provenance(), "retrained": calibrated.how},
                },
            )
            slow = time_int8(folder, bundle, max(calibration, key=len), budget)
            if force_int8 or budget or not slow:
                bundle = replace(bundle, default="int8")
        device = _start(folder, bundle, "onnxruntime", bundle.default)
        bundle = replace(bundle, stream=stream_settings(device, sample_rate, calibration))
        if frontend:
            split = {
                key: name for key, name in wanted.items() if key[1] != mobile.ENGINE and key[0] != "fp16"
            }
            bundle = replace(bundle, frontend=frontend, bodies=write_bodies(folder, split, frontend))
            whole = replace(bundle, files=_hashes(folder))
            quality["body_max_abs_dp"] = rounded(check_bodies(folder, whole, calibration))
        if speaker is not None:
            np.save(folder / _SPEAKER, speaker.astype("<f4"), allow_pickle=False)
        if "ort" in formats:
            mobile.write_operators(folder / "mobile")
        bundle = replace(bundle, files=_hashes(folder), quality=quality)
        (folder / bundles.NAME).write_text(bundle.to_json(), encoding="utf-8")
        (folder / card.NAME).write_text(card.card(folder, bundle), encoding="utf-8")
        if seal:
            seal(folder)
    return Path(out)


def _parity(reference: Predict, folder: Path, bundle: Bundle, clips: Sequence[Floats]) -> dict[str, Any]:
    """Largest |Δp| of the float models against PyTorch, as bundle.json keeps it.

    Raises:
        ExportError: one differs too much.
    """
    found = {
        precision: {
            engine: check_parity(
                reference,
                _start(folder, bundle, engine, precision),
                clips,
                bundle.sample_rate,
                name,
                allowed=allowed,
            )
            for engine, name in bundle.models.get(precision, {}).items()
        }
        for precision, allowed in PARITIES.items()
    }
    fp32, fp16 = found["fp32"], found["fp16"]
    half = {"fp16": {"max_abs_dp": rounded(max(fp16.values()))}} if fp16 else {}
    return {"parity_max_abs_dp": rounded(max(fp32.values())), "parity": fp32, **half}


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
                expected, probabilities(_start(folder, bundle, engine, "int8"), probe.clips), probe.labels
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
        fp32, eight = (_start(folder, bundle, engine, precision) for precision in ("fp32", "int8"))
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


def _start(folder: Path, bundle: Bundle, engine: str, precision: str) -> Predict:
    """The engine as the device uses it, on files that no bundle.json vouches for yet."""
    return engines.start(folder, replace(bundle, files=_hashes(folder)), engine, precision)


def _hashes(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != speed.NAME)
    return {file.relative_to(folder).as_posix(): bundles.sha256(file) for file in files}


def _figures(found: Int8Choice) -> dict[str, Any]:
    """What int8 loses, as bundle.json keeps it: on ONNX Runtime, and beneath it on other engines."""
    by_engine = {
        engine: {
            key: rounded(value) for key, value in asdict(quality).items() if key not in ("clips", "fp32_ua")
        }
        for engine, quality in found.quality.items()
    }
    first = found.quality["onnxruntime"]
    return {
        "clips": first.clips,
        "fp32": {"ua": rounded(first.fp32_ua)},
        "int8": by_engine.pop("onnxruntime") | by_engine,
    }


def _nested(files: Mapping[tuple[str, str], str]) -> dict[str, dict[str, str]]:
    models: dict[str, dict[str, str]] = {}
    for (precision, engine), name in files.items():
        models.setdefault(precision, {})[engine] = name
    return models


def _describe(clips: Sequence[Floats], sample_rate: int, found: Calibration) -> dict[str, Any]:
    """Which clips set the ranges, enough to tell whether two bundles saw the same, and how."""
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


def _versions(openvino: bool) -> dict[str, str]:
    names = ["torch", "onnx", "onnxscript", "onnxruntime", *(["openvino"] if openvino else [])]
    return {"mifuse": mifuse_runtime.__version__, **{name: version(name) for name in names}}
