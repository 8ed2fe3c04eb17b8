"""Which engine is fastest here: what `engine="auto"` means."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mifuse_runtime.engines import Engine

_CALLS = 15  # of each engine
_CHOSEN: dict[str, str] = {}  # what was found in this process


def fastest(
    able: Sequence[str], started: Callable[[str], Engine], key: str, cache: Path | None, length: int
) -> Engine:
    """The engine that is fastest on `length` samples: timed once, then known here and in `cache`."""
    note = cache / f"mifuse-engine-{key}.txt" if cache else None
    known = _CHOSEN.get(key)
    if known is None and note and note.is_file():
        known = note.read_text(encoding="utf-8", errors="replace")
    if known in able:
        return started(str(known))
    engines = [started(name) for name in able]
    times = _times(engines, length)
    fastest = engines[times.index(min(times))]
    _CHOSEN[key] = fastest.name
    if note:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(fastest.name, encoding="utf-8")  # cut short, it is no engine's name: timed again
    return fastest


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
