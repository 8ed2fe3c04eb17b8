"""The whole way from a PyTorch model to a verified bundle; a failure leaves nothing behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import mifuse_runtime
from mifuse_export import card, mobile
from mifuse_export.arguments import check_clips
from mifuse_export.body import check_bodies, write_bodies
from mifuse_export.engines import hashes, start_unsealed
from mifuse_export.errors import ExportError
from mifuse_export.folder import new_folder
from mifuse_export.int8 import Probe, Retrain, add_int8, write_others
from mifuse_export.onnx import OUTPUT, frozen, write_onnx
from mifuse_export.openvino import write_openvino
from mifuse_export.parity import (
    PARITIES,
    Floats,
    Predict,
    check_parity,
    remembered,
    rounded,
    torch_predict,
)
from mifuse_export.settings import ExportConfig
from mifuse_export.signing import signer
from mifuse_export.speech import bins_of
from mifuse_export.speech_parity import check_speech
from mifuse_export.thresholds import stream_settings
from mifuse_runtime import bundle as bundles
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.dimensions import Ranges
from mifuse_runtime.settings import FrontEnd

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


def export_bundle(
    model: nn.Module,
    out: Path,
    config: ExportConfig | None = None,
    *,
    labels: Sequence[str],
    dimensions: Ranges | None = None,
    sample_rate: int = 16_000,
    calibration: Sequence[Floats] = (),
    probe: Probe | None = None,
    retrain: Retrain | None = None,
    frontend: FrontEnd | None = None,
    speaker: Floats | None = None,
    provenance: Mapping[str, Any] | None = None,
    sign: Path | None = None,
    force: bool = False,
) -> Path:
    """Write the bundle `out` of `model`, every file of it checked against the model; returns `out`.

    Args:
        model: forward(samples (batch, n)) -> probabilities (batch, C), dimensions, or a tuple of both.
        dimensions: each with its range, in the order of the model's, which has them from 0 to 1, (batch, V).
        config: what the bundle holds and what int8 may cost; None: fp32 in ONNX.
        calibration: real clips, (n,) float32 at `sample_rate`, as the device will see them.
        probe: clips that int8 is judged on; None: the calibration clips.
        retrain: asked for a model trained with int8's rounding when int8 in every layer fails the gate. Int8
            is of whichever model can have more layers in it; fp32, and what int8 is held against, is `model`.
        frontend: of the model; streams then run what follows it on frames made once. None: another one.
        speaker: (C + V, D + 1) weights and bias of the head for speakers whom the device gets to know (see
            `mifuse_runtime.speaker`), on what `head` is given and the spectrum. None: it knows nobody.
        provenance: what is known of the model's making, JSON values.
        sign: PEM file of a private key that signs the bundle; None leaves it unsigned.
        force: replace an existing bundle.

    Raises:
        ExportError: bad arguments, a graph that differs from the model, or an int8 model that loses too much.
        OverBudgetError: the int8 model costs more than the budget.
        OSError: `out` cannot be written.
    """
    config, out = config or ExportConfig(), Path(out)
    check_clips(calibration, needed=config.quantised)
    check_clips(probe.clips if probe else (), needed=False)
    if speaker is not None and not frontend:
        raise ExportError("a head for known speakers needs the spectrum of a front end: give `frontend`, too")
    seal = signer(sign) if sign else None
    bundle = replace(_planned(config, labels, sample_rate, speaker), dimensions=dict(dimensions or {}))
    bundle = replace(bundle, provenance={**(provenance or {}), "versions": _versions(config)})
    model = frozen(model)
    bundle = replace(bundle, gated=bins_of(model) is not None)
    with new_folder(out, force) as folder:
        bundle = _write_models(model, folder, bundle, config, calibration, probe=probe, retrain=retrain)
        bundle = _add_streams(folder, bundle, frontend, calibration)
        if speaker is not None:
            np.save(folder / _SPEAKER, speaker.astype("<f4"), allow_pickle=False)
        bundle = replace(bundle, files=hashes(folder))
        (folder / bundles.NAME).write_text(bundle.to_json(), encoding="utf-8")
        (folder / card.NAME).write_text(card.card(folder, bundle), encoding="utf-8")
        if seal:
            seal(folder)
    return out


def _planned(
    config: ExportConfig,
    labels: Sequence[str],
    sample_rate: int,
    speaker: Floats | None,
) -> Bundle:
    """The bundle before anything is written or measured."""
    return Bundle(
        labels=tuple(labels),
        output=OUTPUT if labels else bundles.DIMENSIONS,
        sample_rate=sample_rate,
        window=config.window,
        default="fp32",
        models=_files(config),
        files={},
        speaker=None if speaker is None else _SPEAKER,
    )


def _files(config: ExportConfig) -> dict[str, dict[str, str]]:
    """Precision -> engine -> file."""
    wanted = {"fp32": True, "fp16": config.fp16, "int8": config.quantised}
    models: dict[str, dict[str, str]] = {}
    for (precision, engine), name in _MODELS.items():
        if wanted[precision] and engine in config.engines:
            models.setdefault(precision, {})[engine] = name
    return models


def _write_models(
    model: nn.Module,
    folder: Path,
    bundle: Bundle,
    config: ExportConfig,
    calibration: Sequence[Floats],
    *,
    probe: Probe | None,
    retrain: Retrain | None,
) -> Bundle:
    """All graphs from samples to probabilities; the bundle with what was measured of them.

    Raises:
        ExportError: one is not as good as the model.
    """
    reference = torch_predict(model)
    _write_floats(model, folder, bundle)
    quality = _parity(reference, folder, bundle, calibration)
    if config.quantised:
        bundle, figures = add_int8(
            *(reference, folder, bundle, config),
            calibration=calibration,
            probe=probe or Probe(calibration),
            retrain=retrain,
        )
        quality = figures | quality
    if bundle.gated:
        worst = check_speech(folder, replace(bundle, files=hashes(folder)), calibration)
        quality["speech_max_abs_dlogit"] = rounded(worst)
    if "ort" in config.formats:
        mobile.write_operators(folder / "mobile")
    return replace(bundle, quality=quality)


def _write_floats(model: nn.Module, folder: Path, bundle: Bundle) -> None:
    files = bundle.models["fp32"]
    source, embedding = folder / files["onnxruntime"], bundle.speaker is not None
    write_onnx(
        *(model, source),
        labels=bundle.labels,
        sample_rate=bundle.sample_rate,
        embedding=embedding,
        dimensions=bundle.dimensions,
    )
    write_others(folder, files)
    if "fp16" in bundle.models:
        write_openvino(source, folder / bundle.models["fp16"]["openvino"], half=True)


def _add_streams(folder: Path, bundle: Bundle, frontend: FrontEnd | None, clips: Sequence[Floats]) -> Bundle:
    """The bundle with thresholds of streams and the graphs behind the front end, held to the whole ones."""
    device = start_unsealed(folder, bundle, "onnxruntime", bundle.default)
    classes = len(bundle.labels)
    settings = stream_settings(lambda batch: device(batch)[:, :classes], bundle.sample_rate, clips)
    bundle = replace(bundle, stream=settings)
    if not frontend:
        return bundle
    split = {
        (precision, engine): name
        for precision, models in bundle.models.items()
        for engine, name in models.items()
        if engine != mobile.ENGINE and precision != "fp16"
    }
    bundle = replace(bundle, frontend=frontend, bodies=write_bodies(folder, split, frontend))
    worst = check_bodies(folder, replace(bundle, files=hashes(folder)), clips)
    return replace(bundle, quality=dict(bundle.quality) | {"body_max_abs_dp": rounded(worst)})


def _parity(reference: Predict, folder: Path, bundle: Bundle, clips: Sequence[Floats]) -> dict[str, Any]:
    """Largest |Δp| of the float models against PyTorch, as bundle.json keeps it.

    Raises:
        ExportError: one differs too much.
    """
    known = remembered(reference)
    found = {
        precision: {
            engine: check_parity(
                known,
                start_unsealed(folder, bundle, engine, precision),
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


def _versions(config: ExportConfig) -> dict[str, str]:
    openvino = ["openvino"] if "openvino" in config.formats else []
    names = ["torch", "onnx", "onnxscript", "onnxruntime", *openvino]
    return {"mifuse": mifuse_runtime.__version__, **{name: version(name) for name in names}}
