"""The whole way from a PyTorch model to a verified bundle; a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

import mifuse_runtime
from mifuse_export.body import check_bodies, write_bodies
from mifuse_export.errors import ExportError
from mifuse_export.onnx import frozen, write_onnx
from mifuse_export.verify import Floats, Predict, check_parity, compare, probabilities, torch_predict
from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines, voice
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.settings import FrontEnd, Settings

_LOGGER = logging.getLogger(__name__)

FORMATS = ("onnx", "openvino")
ABSTAIN = 0.1  # share of the calibration clips for which the device says "not sure"
QUIET = 30.0  # dB from a clip's loudest frame down to what is no speech any more
LEVELS = (-75.0, -45.0)  # dBFS: what calibration may call silence
_MODELS = {
    ("fp32", "onnxruntime"): "model.onnx",
    ("int8", "onnxruntime"): "model.int8.onnx",
    ("fp32", "openvino"): "openvino/model.xml",
    ("int8", "openvino"): "openvino/model.int8.xml",
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
    probe: Probe | None = None,
    frontend: FrontEnd | None = None,
    provenance: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Write the bundle `out` of `model`, every file of it checked against the model.

    Args:
        model: forward(samples (batch, n)) -> probabilities (batch, C).
        calibration: real clips, (n,) float32 at `sample_rate`, as the device will see them. They set the
            ranges of int8 and the thresholds of streams, and are part of the parity check.
        formats: `onnx` is always written; `openvino` beside it.
        max_drop: what int8 may lose, points of accuracy (see `Quality.failure`).
        probe: clips that int8 is judged on; None: the calibration clips.
        frontend: the numbers of the model's log-mel front end; the bundle then holds what follows it, too,
            as graphs that a stream runs on frames that it has computed once. None: it has another one.
        provenance: what is known of the model's making, JSON values.
        force: replace an existing bundle.

    Returns:
        `out`.

    Raises:
        ExportError: bad arguments, a graph that differs from the model, or an int8 model that loses too much.
        OSError: `out` cannot be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ExportError(f"unknown format {unknown[0]!r}: use {' or '.join(FORMATS)}")
    if int8 and not calibration:
        raise ExportError("int8 needs calibration clips, there are none: pass a manifest with --calibration")
    _check_clips([*calibration, *(probe.clips if probe else ())])
    model = frozen(model)
    wanted = {
        (precision, engine): name
        for (precision, engine), name in _MODELS.items()
        if (int8 or precision == "fp32") and (engine == "onnxruntime" or "openvino" in formats)
    }
    with _new_folder(Path(out), force) as folder:
        write_models(
            model, folder, list(wanted), labels=labels, sample_rate=sample_rate, calibration=calibration
        )
        bodies = write_bodies(folder, wanted, frontend) if frontend else {}
        bundle = Bundle(
            labels=tuple(labels),
            sample_rate=sample_rate,
            window=window,
            default="int8" if int8 else "fp32",
            models=_nested(wanted),
            files={
                file.relative_to(folder).as_posix(): bundles.sha256(file)
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            },
            bodies=bodies,
            frontend=frontend or FrontEnd(),
            calibration=_describe(calibration, sample_rate) if int8 else {},
            provenance={**(provenance or {}), "versions": _versions("openvino" in formats)},
        )
        bundle = replace(bundle, stream=stream_settings(folder, bundle, calibration))
        quality = verify_models(
            model,
            folder,
            bundle,
            calibration=calibration,
            probe=probe or Probe(calibration),
            max_drop=max_drop,
        )
        if bodies:
            quality["body_max_abs_dp"] = _rounded(check_bodies(folder, bundle, calibration))
        text = replace(bundle, quality=quality).to_json()
        (folder / bundles.NAME).write_text(text, encoding="utf-8")
    return Path(out)


def write_models(
    model: nn.Module,
    folder: Path,
    wanted: Sequence[tuple[str, str]],
    *,
    labels: Sequence[str],
    sample_rate: int,
    calibration: Sequence[Floats],
) -> None:
    """Write the (precision, engine) files that are wanted; the others all come from the float ONNX graph."""
    source = folder / _MODELS["fp32", "onnxruntime"]
    write_onnx(model, source, labels=labels, sample_rate=sample_rate)
    for precision in ("fp32", "int8"):
        onnx_file = folder / _MODELS[precision, "onnxruntime"]
        if precision == "int8" and (precision, "onnxruntime") in wanted:
            from mifuse_export.quantize import quantize

            nodes = quantize(source, onnx_file, calibration)
            _LOGGER.info("int8: %d nodes: %s", len(nodes), ", ".join(nodes))
        if (precision, "openvino") in wanted:
            from mifuse_export.openvino import write_openvino

            write_openvino(onnx_file, folder / _MODELS[precision, "openvino"])


def verify_models(
    model: nn.Module,
    folder: Path,
    bundle: Bundle,
    *,
    calibration: Sequence[Floats],
    probe: Probe,
    max_drop: float,
) -> dict[str, Any]:
    """Run every model of the bundle on the engine that the device uses; what was measured.

    Raises:
        ExportError: a float graph differs from `model`, or an int8 one loses more than `max_drop`.
    """
    reference = torch_predict(model)
    parity = {}
    quality: dict[str, Any] = {"clips": len(probe.clips)}
    expected = probabilities(reference, probe.clips) if probe.clips and "int8" in bundle.models else None
    for precision, files in bundle.models.items():
        for engine, name in files.items():
            predict: Predict = engines.start(folder, bundle, engine, precision, threads=1)
            if precision == "fp32":
                parity[engine] = check_parity(reference, predict, calibration, bundle.sample_rate, name)
            elif expected is not None:
                measured = compare(expected, probabilities(predict, probe.clips), probe.labels)
                failure = measured.failure(max_drop)
                if failure:
                    raise ExportError(
                        f"int8 on {engine} loses too much: {failure}; "
                        "give more calibration clips of the target, a higher --max-drop, or leave out --int8"
                    )
                quality["fp32"] = {"ua": measured.fp32_ua}
                figures = {
                    k: _rounded(v) for k, v in asdict(measured).items() if k not in ("clips", "fp32_ua")
                }
                quality.setdefault("int8", figures if engine == "onnxruntime" else {})
                if engine != "onnxruntime":
                    quality["int8"][engine] = figures
    return {**quality, "parity_max_abs_dp": _rounded(max(parity.values())), "parity": parity}


def stream_settings(folder: Path, bundle: Bundle, clips: Sequence[Floats]) -> Settings:
    """Where the device is "not sure" and what is silence to it, from clips of the target without labels.

    The share `ABSTAIN` of the clips that the default model is least sure of is below the threshold, and what
    lies `QUIET` dB below the loudest frame of nearly every clip is silence.
    """
    if not clips:
        return Settings()
    predict = engines.start(folder, bundle, "onnxruntime", None, threads=1)
    confidence = probabilities(predict, clips).max(axis=1)
    framed = [voice.framed(clip, bundle.sample_rate) for clip in clips]
    peaks = [float(voice.levels(frames).max()) for frames in framed if frames.size]
    level = float(np.quantile(peaks, 0.05)) - QUIET if peaks else Settings.level
    return Settings(
        abstain=round(float(np.quantile(confidence, ABSTAIN)), 6),
        level=round(min(max(level, LEVELS[0]), LEVELS[1]), 1),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


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


def _describe(clips: Sequence[Floats], sample_rate: int) -> dict[str, Any]:
    """Which clips set the ranges: enough to tell whether two bundles saw the same."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(hashlib.sha256(clip.tobytes()).digest())
    seconds = [len(clip) / sample_rate for clip in clips]
    return {
        "clips": len(clips),
        "seconds": [round(min(seconds), 3), round(float(np.median(seconds)), 3), round(max(seconds), 3)],
        "sha256": digest.hexdigest(),
        "method": "min-max",
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
        yield folder
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        if out.exists():
            out.rename(old)
        folder.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
