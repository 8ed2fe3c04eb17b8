"""What the device allows: size and time of the int8 model, estimated before and checked after."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from torch import nn

from mifuse_export import speed
from mifuse_export.calibration import calibrate
from mifuse_export.errors import ExportError
from mifuse_export.onnx import INPUT, frozen, session_options, write_onnx
from mifuse_export.parity import Floats

_CALIBRATION_CLIPS = 4  # of an estimate: weights and ranges do not matter for size and time


@dataclass(frozen=True)
class Cost:
    """What an int8 model costs."""

    kb: float  # its ONNX file, in 1000 bytes
    ms: float  # median time of one window of audio on ONNX Runtime, one thread, on this machine

    def __str__(self) -> str:
        return f"{self.kb:.1f} kB and {self.ms:.3g} ms"


@dataclass(frozen=True)
class Budget:
    """What it may cost, in the units of `Cost`; infinity is no bound.

    Raises:
        ExportError: a bound that is not above 0.
    """

    kb: float = math.inf
    ms: float = math.inf

    def __post_init__(self) -> None:
        for unit, bound in (("kB", self.kb), ("ms", self.ms)):
            if not bound > 0:  # NaN, too
                raise ExportError(f"a budget of {bound:g} {unit}: it must be above 0")

    def __str__(self) -> str:
        bounds = ((self.kb, "kB"), (self.ms, "ms"))
        return " and ".join(f"{bound:g} {unit}" for bound, unit in bounds if bound < math.inf)

    def holds(self, cost: Cost) -> bool:
        """Whether the cost is within the budget."""
        return cost.kb <= self.kb and cost.ms <= self.ms

    def check(self, cost: Cost) -> None:
        """Refuse what costs more.

        Raises:
            OverBudgetError: it does.
        """
        if not self.holds(cost):
            raise OverBudgetError(f"the int8 model costs {cost}, the budget is {self}")


class OverBudgetError(ExportError):
    """The int8 model costs more than the budget."""


def estimate(
    model: nn.Module,
    clips: Sequence[Floats],
    *,
    labels: Sequence[str],
    sample_rate: int = 16_000,
    window: float = 3.0,
) -> Cost:
    """What the model will cost as int8, in seconds instead of an export; it need not be trained.

    Args:
        model, clips, labels, sample_rate, window: as in `export_bundle`, clips as its calibration.
    """
    ordered = sorted(clips, key=len)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        write_onnx(frozen(model), source, labels=labels, sample_rate=sample_rate)
        calibrated = calibrate(onnx.load(source), ordered[:: -(-len(ordered) // _CALIBRATION_CLIPS)])
        int8 = calibrated.int8().SerializeToString()
    session = onnxruntime.InferenceSession(int8, session_options(), providers=["CPUExecutionProvider"])
    samples = np.resize(ordered[-1], (1, round(window * sample_rate)))
    spent = speed.times([lambda audio: session.run(None, {INPUT: audio})[0]], samples)
    return Cost(len(int8) / 1000, 1e3 * float(np.median(spent)))
