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
from mifuse_runtime.bundle import DIMENSIONS, Bundle


def start(folder: Path, bundle: Bundle, engine: str, precision: str) -> Predict:
    """The bundle's model on an engine, one thread, as the device runs it.

    Raises:
        MifuseError: the engine is not installed or cannot run the model.
    """
    if engine != mobile.ENGINE:
        return engines.start(folder, bundle, engine, precision, threads=1)
    path = str(folder / bundle.model(engine, precision))
    outputs = [bundle.output, *([DIMENSIONS] if bundle.dimensions else [])]
    session = onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])

    def predict(samples: Floats) -> Floats:
        found: Floats = np.concatenate(session.run(outputs, {bundle.input: samples}), axis=-1)
        return found

    return predict


def start_unsealed(folder: Path, bundle: Bundle, engine: str, precision: str) -> Predict:
    """The engine as the device uses it, on files that no bundle.json vouches for yet."""
    return start(folder, replace(bundle, files=hashes(folder)), engine, precision)


def hashes(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of all that a bundle vouches for."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != speed.NAME)
    return {file.relative_to(folder).as_posix(): bundles.sha256(file) for file in files}
