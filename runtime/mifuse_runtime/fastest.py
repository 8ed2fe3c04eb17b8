"""Which engine is fastest here: what `engine="auto"` means."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from mifuse_runtime.bundle import Bundle
from mifuse_runtime.graph import Engine

_CALLS = 15  # of each engine
_CHOSEN: dict[str, str] = {}  # what was found in this process


def fastest(
    names: Iterable[str],
    bundle: Bundle,
    precision: str | None,
    threads: int,
    started: Callable[[str], Engine],
    *,
    cache: Path | None,
    body: bool,
) -> Engine:
    """The named engine that is fastest on a window: timed once, then known in this process and in `cache`."""
    models = bundle.models.get(precision or bundle.default, {})
    able = [name for name in names if name in models and importlib.util.find_spec(name)]
    if len(able) < 2:
        return started(able[0] if able else "onnxruntime")
    what = (sorted(bundle.files.items()), precision or bundle.default, threads, body, platform.platform())
    key = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    note = cache / f"mifuse-engine-{key}.txt" if cache else None
    known = _CHOSEN.get(key)
    if known is None and note and note.is_file():
        known = note.read_text(encoding="utf-8", errors="replace")
    if known in able:
        return started(str(known))
    engines = [started(name) for name in able]
    times = _times(engines, int(bundle.window * bundle.sample_rate))
    chosen = engines[times.index(min(times))]
    _CHOSEN[key] = chosen.name
    if note:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(chosen.name, encoding="utf-8")  # cut short, it is no engine's name: timed again
    return chosen


def _times(engines: Sequence[Engine], length: int) -> list[float]:
    """Median seconds of a call on `length` samples for each engine."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(length).astype(np.float32)
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(_CALLS):  # in turns, so that a busy moment slows them all
        for run, spent in zip(engines, times, strict=True):
            front = run.graph.front
            begin = time.perf_counter()
            run((front.clip(samples) if front else samples)[None])
            spent.append(time.perf_counter() - begin)
    return [float(np.median(spent)) for spent in times]
