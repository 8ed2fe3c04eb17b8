"""`mifuse-runtime info` and `verify`: what a bundle is, and whether it works here."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines, signature
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.command.loading import DEMO
from mifuse_runtime.command.output import say
from mifuse_runtime.decision import Prediction
from mifuse_runtime.dimensions import in_unit
from mifuse_runtime.errors import BundleError
from mifuse_runtime.frontend import MelPower
from mifuse_runtime.recognizer import Recognizer

TOLERANCE = (
    1e-3  # largest difference of probabilities between two engines, or between a clip alone and beside others
)
FORMS = 1e-4  # the same between a whole float model and its body behind the front end of this package
ROUNDING = 1e-2  # and in int8, where a value between two levels may fall to either


def info(arguments: argparse.Namespace) -> int:
    """Print the bundle's model card."""
    bundle = bundles.load(arguments.bundle)
    if arguments.json:
        say(json.dumps(json.loads(bundle.to_json())))
        return 0
    said = ", ".join(bundle.labels or bundle.dimensions)
    say(f"{arguments.bundle}: {said}; all {len(bundle.files)} files are as exported")
    if bundle.demo:
        say(f"  demo      {DEMO}")
    say(f"  input     {bundle.sample_rate} Hz mono, streams look at {bundle.window:g} s")
    for precision, models in bundle.models.items():
        for engine, name in models.items():
            size = (Path(arguments.bundle) / name).stat().st_size
            default = " (default)" if precision == bundle.default else ""
            say(f"  model     {precision} for {engine}: {name}, {size / 1000:.0f} kB{default}")
            if body := bundle.body(engine, precision):
                size = (Path(arguments.bundle) / body).stat().st_size
                say(f"  body      of it: {body}, {size / 1000:.0f} kB; streams take it")
    for name, (low, high) in bundle.dimensions.items():
        say(f"  dimension {name}, from {low:g} to {high:g}")
    if bundle.speaker:
        say(f"  speaker   can be known: {bundle.speaker}")
    parts = {"stream": asdict(bundle.stream)}
    parts |= {name: dict(getattr(bundle, name)) for name in ("quality", "calibration", "provenance")}
    for part, values in parts.items():
        for key, value in _flat(values):
            say(f"  {part:11} {key}: {value}")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Check the hashes and a signature, then run every model that an engine here can run."""
    bundle = bundles.load(arguments.bundle)
    rows = [{"check": f"{len(bundle.files)} files", "result": "as exported"}]
    if arguments.public_key:
        signature.check(arguments.bundle, arguments.public_key)
        rows.append({"check": signature.NAME, "result": f"of the owner of {arguments.public_key}"})
    reference: dict[str, list[list[float]]] = {}
    for precision, models in bundle.models.items():
        for engine in models:
            check = f"{precision} on {engine}"
            if not importlib.util.find_spec(engine):
                rows.append({"check": check, "result": "left out: the engine is not installed"})
                continue
            found = _self_test(arguments.bundle, bundle, engine, precision, arguments.threads)
            worst = _difference(found, reference.setdefault(precision, found))
            if worst > TOLERANCE:
                raise BundleError(
                    f"{arguments.bundle}: {check} differs by {worst:.2g} from the other engine: export again"
                )
            split = "; its body says the same" if bundle.body(engine, precision) else ""
            rows.append({"check": check, "result": f"runs; the same alone and beside others{split}"})
    if bundle.speaker:
        recognizer = Recognizer.load(arguments.bundle)
        recognizer.predict(np.zeros(bundle.sample_rate, np.float32), speaker=recognizer.speaker(), gate=False)
        rows.append({"check": bundle.speaker, "result": "fits the model: speakers can be known"})
    for row in rows:
        say(json.dumps(row) if arguments.json else f"{row['check']}: {row['result']}")
    return 0


def _self_test(folder: str, bundle: Bundle, engine: str, precision: str, threads: int) -> list[list[float]]:
    """Probabilities of a few signals: the same alone and beside others, from the body and the whole model."""
    recognizer = Recognizer.load(folder, engine, threads, precision)
    rate = bundle.sample_rate
    time = np.arange(rate) / rate
    noise = 0.1 * np.random.default_rng(0).standard_normal(rate)
    clips = [
        (noise * np.sin(9 * time) ** 2).astype(np.float32),
        (0.3 * np.sin(900 * time)).astype(np.float32),
    ]
    clips += [np.zeros(rate, np.float32), clips[0][: rate // 10], np.sign(clips[0])]
    alone = [_numbers(recognizer.predict(clip, gate=False), bundle) for clip in clips]
    together = [_numbers(found, bundle) for found in recognizer.predict_batch(clips, gate=False)]
    worst = _difference(alone, together)
    if worst > TOLERANCE:
        raise BundleError(
            f"{folder}: {precision} on {engine} answers differently beside other clips, by {worst:.2g}: "
            "export it again"
        )
    if bundle.body(engine, precision):
        whole, body = (
            engines.start(Path(folder), bundle, engine, precision, threads, body=cut) for cut in (False, True)
        )
        front = MelPower(bundle.frontend, bundle.sample_rate)
        worst = _difference(
            [whole(clip[None])[0].tolist() for clip in clips],
            [body(front.clip(clip)[None])[0].tolist() for clip in clips],
        )
        if worst > (FORMS if precision == "fp32" else ROUNDING):
            raise BundleError(
                f"{folder}: {precision} on {engine}: the body differs by {worst:.2g}; export again"
            )
    return alone


def _numbers(found: Prediction, bundle: Bundle) -> list[float]:
    return [*found.scores.values(), *in_unit(found.dimensions, bundle.dimensions)]


def _difference(left: list[list[float]], right: list[list[float]]) -> float:
    return float(np.abs(np.subtract(left, right)).max())


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
