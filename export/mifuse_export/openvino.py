"""ONNX to OpenVINO IR, weights as they are or in half the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mifuse_export.errors import ExportError
from mifuse_export.onnx import quiet


def write_openvino(source: Path, target: Path, half: bool = False) -> None:
    """Convert the ONNX file `source` to `target` (.xml) and the .bin beside it.

    Args:
        half: float weights as fp16; they are made float32 when the model is loaded.

    Raises:
        ExportError: OpenVINO is not installed or cannot convert the graph.
    """
    try:
        import openvino
    except ImportError as error:
        raise ExportError("--format openvino needs OpenVINO: pip install 'mifuse[export]'") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with quiet():
            # Not `convert_model`: it would write out every constant that the graph makes when it is loaded.
            model = openvino.Core().read_model(source)
            _fold_ranges(model)
            # Its own names count every node that this process ever made.
            for i, node in enumerate(model.get_ordered_ops()):
                if node.get_type_name() not in ("Parameter", "Result"):
                    node.set_friendly_name(f"{node.get_type_name()}_{i}")
            openvino.save_model(model, target, compress_to_fp16=half)
    except RuntimeError as error:
        line = " ".join(str(error).split())[:300]
        raise ExportError(f"OpenVINO cannot convert {source.name}: {line}") from error


def _fold_ranges(model: Any) -> None:
    """Write out the axes of layer norms, which come as ranges of constants: a bundle may hold no Range."""
    import openvino

    for node in model.get_ordered_ops():
        if node.get_type_name() == "Range":
            ends = [value.get_source_output().get_node() for value in node.inputs()]
            if all(end.get_type_name() == "Constant" for end in ends):
                axes = np.arange(*(end.data.item() for end in ends), dtype=np.int64)
                node.output(0).replace(openvino.op.Constant(axes).output(0))
