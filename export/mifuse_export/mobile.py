"""ONNX to the ORT format, which ONNX Runtime Mobile reads, and the start of every engine of a bundle."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from mifuse_export.errors import ExportError
from mifuse_export.onnx import session_options
from mifuse_export.verify import Floats, Predict
from mifuse_runtime import engines
from mifuse_runtime.bundle import Bundle

ENGINE = "onnxruntime-mobile"  # for Android and iOS; here ONNX Runtime itself reads its files


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
