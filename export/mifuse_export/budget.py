"""What a model will cost as int8, estimated without an export."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from torch import nn

from mifuse_export import speed
from mifuse_export.calibration import calibrate
from mifuse_export.onnx import INPUT, frozen, session_options, write_onnx
from mifuse_export.parity import Floats
from mifuse_export.settings import Cost
from mifuse_runtime.dimensions import Ranges

_CALIBRATION_CLIPS = 4  # of an estimate: weights and ranges do not matter for size and time


def estimate(
    model: nn.Module,
    clips: Sequence[Floats],
    *,
    labels: Sequence[str],
    dimensions: Ranges | None = None,
    sample_rate: int = 16_000,
    window: float = 3.0,
) -> Cost:
    """What the model will cost as int8, in seconds instead of an export; it need not be trained.

    Args:
        model, clips, labels, sample_rate, window: as in `export_bundle`, clips as its calibration.
        dimensions: the model's, each with its range.
    """
    ordered = sorted(clips, key=len)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        write_onnx(frozen(model), source, labels=labels, sample_rate=sample_rate, dimensions=dimensions)
        calibrated = calibrate(onnx.load(source), ordered[:: -(-len(ordered) // _CALIBRATION_CLIPS)])
        int8 = calibrated.int8().SerializeToString()
    session = onnxruntime.InferenceSession(int8, session_options(), providers=["CPUExecutionProvider"])
    samples = np.resize(ordered[-1], (1, round(window * sample_rate)))
    spent = speed.times([lambda audio: session.run(None, {INPUT: audio})[0]], samples)
    return Cost(len(int8) / 1000, 1e3 * float(np.median(spent)))
