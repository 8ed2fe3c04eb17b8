"""What is exported: formats and precisions, and what 8 bits may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mifuse_export.errors import ExportError

FORMATS = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "ort": "onnxruntime-mobile",
}  # -> engine that reads it


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


@dataclass(frozen=True)
class ExportConfig:
    """What a bundle holds.

    Raises:
        ExportError: an unknown format, a drop below 0, a window that is none, or fp16 without OpenVINO.
    """

    formats: tuple[str, ...] = ("onnx",)  # `onnx` is always written; `openvino` and `ort` beside it
    int8: bool = False  # an 8-bit model, the default unless it is slower; a budget makes one, too
    fp16: bool = False  # an OpenVINO model with weights of two bytes; streams run it whole, it has no body
    window: float = 3.0  # s of audio that a stream looks at
    max_drop: float = 0.5  # points of accuracy that int8 may lose, see `Quality.failure`
    force_int8: bool = False  # int8 is the default even where ONNX Runtime is slower with it
    budget: Budget | None = None  # what the int8 ONNX model may cost; None is no bound
    qat: bool = False  # where int8 fails its gate, fine-tune the student with the rounding of 8 bits

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise ExportError(f"unknown format {unknown[0]!r}: use {' or '.join(FORMATS)}")
        if not self.max_drop >= 0:
            raise ExportError(f"max_drop is {self.max_drop}: it must be at least 0")
        if not 0 < self.window < math.inf:
            raise ExportError(f"window is {self.window} s: it must be above 0")
        if self.fp16 and "openvino" not in self.formats:
            raise ExportError("fp16 is a precision of OpenVINO's files: give --format openvino, too")
        if self.qat and not self.quantised:
            raise ExportError("qat is for the 8-bit model: set int8, too")

    @property
    def quantised(self) -> bool:
        """Whether there is an int8 model."""
        return self.int8 or self.budget is not None

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that the files are for."""
        return ("onnxruntime", *(FORMATS[name] for name in self.formats if name != "onnx"))
