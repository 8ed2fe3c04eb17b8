"""Every engine of a bundle, those of phones among them, as functions of samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from mifuse_export import mobile, speed
from mifuse_export.onnx import session_options
from mifuse_export.parity import Floats, Predict
from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines
from mifuse_runtime.bundle import DIMENSIONS, SPEECH, Bundle


def start(folder: Path, bundle: Bundle, engine: str, precision: str) -> Predict:
    """The bundle's model on an engine, one thread, as the device runs it.

    Raises:
        MifuseError: the engine is not installed or cannot run the model.
    """
    if engine != mobile.ENGINE:
        return engines.start(folder, bundle, engine, precision, threads=1)
    session, outputs = _phone(folder, bundle, engine, precision), [bundle.output]
    outputs += [DIMENSIONS] if bundle.dimensions else []

    def predict(samples: Floats) -> Floats:
        found: Floats = np.concatenate(session.run(outputs, {bundle.input: samples}), axis=-1)
        return found

    return predict


def log_odds(folder: Path, bundle: Bundle, engine: str, precision: str) -> Predict:
    """The output `speech` of the bundle's model on an engine, (batch, k) of samples (batch, n)."""
    if engine != mobile.ENGINE:
        whole = engines.start(folder, bundle, engine, precision, threads=1)
        return lambda samples: whole.answers(samples)[1]
    session = _phone(folder, bundle, engine, precision)
    return lambda samples: np.asarray(session.run([SPEECH], {bundle.input: samples})[0])


def _phone(folder: Path, bundle: Bundle, engine: str, precision: str) -> onnxruntime.InferenceSession:
    path = str(folder / bundle.model(engine, precision))
    return onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])


def start_unsealed(folder: Path, bundle: Bundle, engine: str, precision: str) -> Predict:
    """The engine as the device uses it, on files that no bundle.json vouches for yet."""
    return start(folder, replace(bundle, files=hashes(folder)), engine, precision)


def hashes(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of all that a bundle vouches for."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != speed.NAME)
    return {file.relative_to(folder).as_posix(): bundles.sha256(file) for file in files}
