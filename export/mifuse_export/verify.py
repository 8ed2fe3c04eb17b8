"""Every model of a finished bundle against its student, on signals of edge and on real clips."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mifuse_export import engines, mobile
from mifuse_export.int8 import Probe
from mifuse_export.parity import (
    PARITIES,
    Floats,
    Predict,
    Quality,
    compare,
    crowd,
    edge_cases,
    probabilities,
    rounded,
)
from mifuse_runtime.bundle import Bundle

# Largest |Δp| on a signal: what is no speech has no right answer, and int8 may answer a little differently.
EDGES = PARITIES | {"int8": 0.2}


@dataclass(frozen=True)
class Row:
    """One model of the bundle."""

    precision: str
    engine: str
    signals: Mapping[str, float] = field(default_factory=dict)  # largest |Δp| on each
    quality: Quality | None = None  # on the real clips
    failure: str | None = None  # why the model must not be used
    left_out: str | None = None  # why it was not run

    def report(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "precision": self.precision,
            "engine": self.engine,
            "signals": {name: rounded(value) for name, value in self.signals.items()},
            "clips": self.quality and {key: rounded(value) for key, value in vars(self.quality).items()},
            "failure": self.failure,
            "left_out": self.left_out,
        }


def verify_models(
    folder: Path, bundle: Bundle, reference: Predict, probe: Probe | None = None, max_drop: float = 0.5
) -> Iterator[Row]:
    """Run every model that an engine here can run: float must equal `reference`, int8 hold the gate.

    Args:
        reference: the student as a function of samples (batch, n).
        probe: real clips; None: the signals alone.
        max_drop: what int8 may lose on them, points (see `Quality.failure`).

    Raises:
        BundleError: an engine refuses a file.
    """
    batches = {name: clip[None] for name, clip in edge_cases(bundle.sample_rate).items()}
    batches["batch of 32"] = crowd(bundle.sample_rate)
    expected = {name: reference(batch) for name, batch in batches.items()}
    clips = probabilities(reference, probe.clips) if probe else None
    for precision, models in bundle.models.items():
        for engine in models:
            if engine != mobile.ENGINE and not importlib.util.find_spec(engine):
                missing = f"{engine} is not installed: pip install 'mifuse[export]'"
                yield Row(precision, engine, left_out=missing)
                continue
            predict = engines.start(folder, bundle, engine, precision)
            signals = {name: _difference(expected[name], predict(batch)) for name, batch in batches.items()}
            quality = None
            if probe and clips is not None:
                found = probabilities(predict, probe.clips)
                size = len(bundle.dimensions)
                quality = compare(clips, found, probe.labels, probe.values, dimensions=size)
            yield Row(precision, engine, signals, quality, _failure(precision, signals, quality, max_drop))


def _failure(
    precision: str, signals: Mapping[str, float], quality: Quality | None, max_drop: float
) -> str | None:
    worst = max(signals, key=signals.__getitem__)
    allowed = EDGES.get(precision, EDGES["int8"])
    if not signals[worst] <= allowed:
        return f"|Δp| {signals[worst]:.2g} on {worst}, {allowed:g} is allowed"
    if quality is None:
        return None
    if precision in PARITIES:
        close = quality.max_abs_dp <= allowed
        return None if close else f"|Δp| {quality.max_abs_dp:.2g} on real clips, {allowed:g} is allowed"
    return quality.failure(max_drop)


def _difference(expected: Floats, found: Floats) -> float:
    same = expected.shape == found.shape and np.isfinite(found).all()
    return float(np.abs(expected - found).max()) if same else np.inf
