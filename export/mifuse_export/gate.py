"""The accuracy gate of int8: layers that cost too much go back to float, most harmful first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mifuse_export.errors import ExportError
from mifuse_export.parity import Quality, rounded

_LOGGER = logging.getLogger(__name__)

Write = Callable[[Sequence[str]], None]  # the int8 models, with these layers left in float
Measure = Callable[[], Mapping[str, Quality]]  # of the int8 models just written, by engine


@dataclass(frozen=True)
class Repair:
    """A layer that was put back to float, and what the gate said before."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Int8Choice:
    """Int8 models that hold the gate."""

    quality: Mapping[str, Quality]  # by engine
    layers: Mapping[str, str]  # every layer that could be int8 -> the precision that it has
    harm: Mapping[str, float] = field(default_factory=dict)  # mean |Δp| with this layer alone in int8
    repairs: Sequence[Repair] = ()

    def provenance(self) -> dict[str, Any]:
        """What was done, layer by layer, as bundle.json keeps it."""
        repairs = [{"layer": repair.layer, "reason": repair.reason} for repair in self.repairs]
        harm = {layer: rounded(value) for layer, value in self.harm.items()}
        return {"layers": dict(self.layers), "harm": harm, "repairs": repairs}


def fit(write: Write, measure: Measure, layers: Sequence[str], max_drop: float) -> Int8Choice:
    """Write int8 models that lose no more than `max_drop` points on any engine.

    The harm of each layer is measured once, by int8 in that layer alone, and only when int8 in all of them
    fails. An order found by leaving one layer out would miss errors that hide each other.

    Raises:
        ExportError: with a single layer in int8 they still lose more.
    """
    floats: list[str] = []
    repairs: list[Repair] = []
    harm: dict[str, float] = {}
    while True:
        write(floats)
        quality = measure()
        failures = ((engine, found.failure(max_drop)) for engine, found in quality.items())
        failed = next(((engine, reason) for engine, reason in failures if reason), None)
        if failed is None:
            precisions = {layer: "fp32" if layer in floats else "int8" for layer in layers}
            return Int8Choice(quality, precisions, harm, repairs)
        reason = f"int8 on {failed[0]} loses too much: {failed[1]}"
        if len(floats) + 1 >= len(layers):
            tried = f" even with {', '.join(floats)} in float" if floats else ""
            raise ExportError(
                f"{reason}{tried}; "
                "give more calibration clips of the target, --qat or a higher --max-drop, or leave out --int8"
            )
        harm = harm or _harm(write, measure, layers)
        worst = max((layer for layer in layers if layer not in floats), key=harm.__getitem__)
        _LOGGER.info("%s; %s goes back to float (harm %.3g)", reason, worst, harm[worst])
        floats.append(worst)
        repairs.append(Repair(worst, f"{failed[0]}: {failed[1]}"))


def _harm(write: Write, measure: Measure, layers: Sequence[str]) -> dict[str, float]:
    """Mean |Δp| with each layer alone in int8, on the engine that it hurts most."""
    harm = {}
    for layer in layers:
        write([other for other in layers if other != layer])
        harm[layer] = max(_worse(found.mean_abs_dp) for found in measure().values())
    return harm


def _worse(difference: float) -> float:
    return difference if np.isfinite(difference) else 1.0  # NaN orders nothing; 1 is the largest |Δp|
