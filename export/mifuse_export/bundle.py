"""The whole way from a PyTorch model to a verified bundle; a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

import mifuse_runtime
from mifuse_export import card, mobile, speed
from mifuse_export.body import check_bodies, write_bodies
from mifuse_export.budget import Budget, Cost
from mifuse_export.calibration import Calibration, calibrate
from mifuse_export.errors import ExportError
from mifuse_export.gate import Fit, fit
from mifuse_export.onnx import frozen, write_onnx
from mifuse_export.signing import signer
from mifuse_export.verify import (
    Floats,
    Predict,
    Quality,
    check_parity,
    compare,
    probabilities,
    rounded,
    torch_predict,
)
from mifuse_runtime import bundle as bundles
from mifuse_runtime import voice
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.settings import FrontEnd, Settings

FORMATS = {"onnx": "onnxruntime", "openvino": "openvino", "ort": mobile.ENGINE}  # -> engine that reads it
ABSTAIN = 0.1  # share of the calibration clips for which the device says "not sure"
QUIET = 30.0  # dB from a clip's loudest frame down to what is no speech any more
LEVELS = (-75.0, -45.0)  # dBFS: what calibration may call silence
_FULL = 1 << 16  # bytes left on a disk that an engine could not write to
_MODELS = {
    ("fp32", "onnxruntime"): "model.onnx",
    ("int8", "onnxruntime"): "model.int8.onnx",
    ("fp32", "openvino"): "openvino/model.xml",
    ("int8", "openvino"): "openvino/model.int8.xml",
    ("fp32", mobile.ENGINE): "mobile/model.ort",
    ("int8", mobile.ENGINE): "mobile/model.int8.ort",
}


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
    formats: Sequence[str] = ("onnx",),
    max_drop: float = 0.5,
    force_int8: bool = False,
    probe: Probe | None = None,
    budget: Budget | None = None,
    frontend: FrontEnd | None = None,
    provenance: Mapping[str, Any] | None = None,
    sign: Path | None = None,
    force: bool = False,
) -> Path:
    """Write the bundle `out` of `model`, every file of it checked against the model.

    Args:
        model: forward(samples (batch, n)) -> probabilities (batch, C).
        calibration: real clips, (n,) float32 at `sample_rate`, as the device will see them. They set the
            ranges of int8 and the thresholds of streams, and are part of the parity check.
        formats: `onnx` is always written; `openvino` and `ort` (ONNX Runtime Mobile) beside it.
        max_drop: what int8 may lose, points of accuracy (see `Quality.failure`).
        force_int8: int8 is the default precision even where it is not faster than fp32 on ONNX Runtime.
        probe: clips that int8 is judged on; None: the calibration clips.
        budget: what the int8 ONNX model may cost; it is then the default even where it is not faster.
        frontend: the numbers of the model's log-mel front end; the bundle then holds what follows it, too,
            as graphs that a stream runs on frames that it has computed once. None: it has another one.
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
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ExportError(f"unknown format {unknown[0]!r}: use {' or '.join(FORMATS)}")
    if budget and not int8:
        raise ExportError(f"the budget of {budget} is for an int8 model: set int8, too")
    if int8 and not calibration:
        raise ExportError("int8 needs calibration clips, there are none: pass a manifest with --calibration")
    seal = signer(sign) if sign else None
    _check_clips([*calibration, *(probe.clips if probe else ())])
    model = frozen(model)
    reference = torch_predict(model)
    wanted = {
        (precision, engine): name
        for (precision, engine), name in _MODELS.items()
        if (int8 or precision == "fp32") and engine in ("onnxruntime", *(FORMATS[name] for name in formats))
    }
    with _new_folder(Path(out), force) as folder:
        models = _nested(wanted)
        write_onnx(model, folder / models["fp32"]["onnxruntime"], labels=labels, sample_rate=sample_rate)
        write_others(folder, models["fp32"])
        bundle = Bundle(
            labels=tuple(labels),
            sample_rate=sample_rate,
            window=window,
            default="fp32",
            models=models,
            files={},
            provenance={**(provenance or {}), "versions": _versions("openvino" in formats)},
        )
        parity = {
            engine: check_parity(
                reference, _start(folder, bundle, engine, "fp32"), calibration, sample_rate, name
            )
            for engine, name in bundle.models["fp32"].items()
        }
        quality: dict[str, Any] = {"parity_max_abs_dp": rounded(max(parity.values())), "parity": parity}
        if int8:
            found, calibrated = fit_int8(
                reference,
                folder,
                bundle,
                calibration=calibration,
                probe=probe or Probe(calibration),
                max_drop=max_drop,
            )
            quality = _figures(found) | quality
            bundle = replace(
                bundle,
                calibration=_describe(calibration, sample_rate, calibrated),
                provenance={**bundle.provenance, "int8": found.provenance()},
            )
            slow = time_int8(folder, bundle, max(calibration, key=len), budget)
            if force_int8 or budget or not slow:
                bundle = replace(bundle, default="int8")
        bundle = replace(bundle, stream=stream_settings(folder, bundle, calibration))
        if frontend:
            device = {key: name for key, name in wanted.items() if key[1] != mobile.ENGINE}
            bundle = replace(bundle, frontend=frontend, bodies=write_bodies(folder, device, frontend))
            whole = replace(bundle, files=_hashes(folder))
            quality["body_max_abs_dp"] = rounded(check_bodies(folder, whole, calibration))
        if "ort" in formats:
            mobile.write_operators(folder / "mobile")
        bundle = replace(bundle, files=_hashes(folder), quality=quality)
        (folder / bundles.NAME).write_text(bundle.to_json(), encoding="utf-8")
        (folder / card.NAME).write_text(card.card(folder, bundle), encoding="utf-8")
        if seal:
            seal(folder)
    return Path(out)


def write_others(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files of other engines, engine -> file; all come from the ONNX graph."""
    source = folder / files["onnxruntime"]
    if "openvino" in files:
        from mifuse_export.openvino import write_openvino

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
) -> tuple[Fit, Calibration]:
    """Write the int8 models of `bundle`, as many layers in 8 bits as the gate lets through.

    Raises:
        ExportError: no choice of layers loses less than `max_drop` points on the probe.
    """
    from mifuse_export.quantize import layers

    files = bundle.models["int8"]
    expected = probabilities(reference, probe.clips)
    found = calibrate(onnx.load(folder / bundle.model("onnxruntime", "fp32")), calibration)

    def write(floats: Sequence[str]) -> None:
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

    return fit(write, measure, layers(found.model), max_drop), found


def stream_settings(folder: Path, bundle: Bundle, clips: Sequence[Floats]) -> Settings:
    """Where the device is "not sure" and what is silence to it, from clips of the target without labels.

    The share `ABSTAIN` of the clips that the default model is least sure of is below the threshold, and what
    lies `QUIET` dB below the loudest frame of nearly every clip is silence.
    """
    if not clips:
        return Settings()
    predict = _start(folder, bundle, "onnxruntime", bundle.default)
    confidence = probabilities(predict, clips).max(axis=1)
    framed = [voice.framed(clip, bundle.sample_rate) for clip in clips]
    peaks = [float(voice.levels(frames).max()) for frames in framed if frames.size]
    level = float(np.quantile(peaks, 0.05)) - QUIET if peaks else Settings.level
    return Settings(
        abstain=round(float(np.quantile(confidence, ABSTAIN)), 6),
        level=round(min(max(level, LEVELS[0]), LEVELS[1]), 1),
    )


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
    return mobile.start(folder, replace(bundle, files=_hashes(folder)), engine, precision)


def _hashes(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != speed.NAME)
    return {file.relative_to(folder).as_posix(): bundles.sha256(file) for file in files}


def _figures(found: Fit) -> dict[str, Any]:
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


def _check_clips(clips: Sequence[Floats]) -> None:
    for i, clip in enumerate(clips):
        if clip.ndim != 1 or clip.dtype != np.float32 or not clip.size or not np.isfinite(clip).all():
            raise ExportError(
                f"calibration clip {i} is {clip.dtype} {clip.shape}: finite float32 samples (n,) are needed"
            )


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


def check_out(out: Path, force: bool) -> None:
    """Refuse to write over anything, except over a bundle when `force` is set.

    Raises:
        ExportError: `out` is there.
    """
    if out.exists() or out.is_symlink():
        if not force:
            raise ExportError(f"{out} exists: choose another folder, or replace the bundle with --force")
        if not (out / bundles.NAME).is_file():
            raise ExportError(f"{out} exists and is not a bundle: it is not replaced, choose another folder")


@contextlib.contextmanager
def _new_folder(out: Path, force: bool) -> Iterator[Path]:
    """A temporary sibling that becomes `out` when all went well and is gone when it did not."""
    check_out(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{os.getpid()}.part")
    folder.mkdir()
    try:
        with _telling_a_full_disk(folder):
            yield folder
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        if out.exists():
            out.rename(old)
        folder.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _telling_a_full_disk(folder: Path) -> Iterator[None]:
    """Say so where it is one: engines call it "iostream error", and the system names no file."""
    try:
        yield
    except (OSError, ExportError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(folder).free < _FULL:
            place = folder.parent
            raise ExportError(f"{place} has no space left: make room, or choose another folder") from error
        raise
