"""ONNX to the ORT format, which ONNX Runtime Mobile reads, and the start of every engine of a bundle."""

from __future__ import annotations

import logging
from pathlib import Path

import onnxruntime

from mifuse_export.errors import ExportError
from mifuse_export.onnx import session_options
from mifuse_export.verify import Floats, Predict
from mifuse_runtime import engines
from mifuse_runtime.bundle import Bundle

ENGINE = "onnxruntime-mobile"  # for Android and iOS; here ONNX Runtime itself reads its files
OPERATORS = "required_operators_and_types.config"  # what its build takes, so named by its own tools


def write_ort(source: Path, target: Path) -> None:
    """Convert the ONNX file `source`: optimised for any CPU, constants folded, since the phone cannot do it.

    ONNX Runtime orders the content anew each time: of all that an export writes, these bytes differ.

    Raises:
        ExportError: ONNX Runtime cannot convert the graph.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    options = session_options()
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        # The left-out optimiser lays data out for the CPU of this machine.
        onnxruntime.InferenceSession(
            str(source),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["NchwcTransformer"],
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        line = " ".join(str(error).split())[:300]
        raise ExportError(f"ONNX Runtime cannot convert {source.name} to ORT format: {line}") from error


def write_operators(folder: Path) -> None:
    """List operators and types of the ORT files in `folder`, for a build of ONNX Runtime without others."""
    from onnxruntime.tools.ort_format_model import create_config_from_models

    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)  # it tells of every file
    target = folder / OPERATORS
    create_config_from_models(sorted(folder.glob("*.ort")), target, enable_type_reduction=True)
    lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
    # Its comments name folders of this machine.
    target.write_text("".join(line for line in lines if not line.startswith("#")), encoding="utf-8")


def start(folder: Path, bundle: Bundle, engine: str, precision: str) -> Predict:
    """The bundle's model on an engine, one thread, as the device runs it.

    Raises:
        MifuseError: the engine is not installed or cannot run the model.
    """
    if engine != ENGINE:
        return engines.start(folder, bundle, engine, precision, threads=1)
    path = str(folder / bundle.model(engine, precision))
    session = onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])

    def predict(samples: Floats) -> Floats:
        probs: Floats = session.run([bundle.output], {bundle.input: samples})[0]
        return probs

    return predict
