"""Latency of a bundle on this machine: the public call `Recognizer.predict`, nothing less."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mifuse.errors import MifuseError
from mifuse_runtime import Recognizer
from mifuse_runtime.bundle import load

# Instructions that decide how fast integer and bf16 kernels are, as Linux names them.
INSTRUCTIONS = {"avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm"}
WARM_UP = 5  # calls: the first ones allocate memory and fill the caches


@dataclass(frozen=True)
class Latency:
    """Times of `calls` calls on `seconds` of audio, ms."""

    precision: str
    seconds: float
    calls: int
    p50: float
    p90: float
    p99: float
    ratio: float | None  # int8: median of time over that of the fp32 call beside it; None without fp32


@dataclass(frozen=True)
class Machine:
    """Where a measurement was made."""

    cpu: str  # and which of `INSTRUCTIONS` it has
    cores: int  # that this process may use
    load: float | None  # other work in the last minute, in cores; None where the system does not tell
    system: str
    versions: dict[str, str]


def machine() -> Machine:
    """This machine, for printing beside every measurement."""
    installed = {name: util.find_spec(name) for name in ("numpy", "onnxruntime", "openvino")}
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name, found in installed.items() if found}
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return Machine(_cpu(), cores, load, f"{platform.system()} {platform.machine()}", versions)


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    said = {name.strip(): value.strip() for name, _, value in (t.partition(":") for t in text.splitlines())}
    has = sorted(INSTRUCTIONS.intersection(said.get("flags", said.get("Features", "")).split()))
    name = said.get("model name", platform.machine())
    return f"{name} ({', '.join(has)})" if has else name


def bench(
    bundle: Path,
    *,
    seconds: Sequence[float] = (1.0, 3.0, 10.0),
    calls: int = 100,
    engine: str = "onnxruntime",
    threads: int = 1,
    progress: Callable[[], None] | None = None,
) -> list[Latency]:
    """Time every precision of a bundle.

    Calls of the precisions take turns, so that a machine that slows down slows them all.

    Args:
        seconds: lengths of audio.
        calls: timed calls of each precision and length, after the warm-up.
        progress: called after each length.

    Raises:
        MifuseError: not a bundle, no model for that engine, or a length that is too short.
    """
    if calls < 1 or min(seconds, default=0.0) <= 0:
        raise MifuseError(
            f"{calls} calls on {list(seconds)} s of audio: give at least one, and lengths above 0"
        )
    models = load(bundle).models
    precisions = [name for name in ("fp32", "fp16", "int8") if engine in models.get(name, {})]
    if not precisions:
        raise MifuseError(f"{bundle} has no model for {engine}: export it with --format")
    recognizers = {
        name: Recognizer.load(bundle, engine=engine, threads=threads, precision=name) for name in precisions
    }
    found = []
    for length in seconds:
        audio = _noise(length, next(iter(recognizers.values())).sample_rate)
        found += _summary(length, _times(recognizers, audio, calls))
        if progress:
            progress()
    return found


def _noise(seconds: float, rate: int) -> NDArray[np.float32]:
    """Noise in bursts, four a second as syllables: silence would be cheaper than speech in some graphs."""
    times = np.arange(max(int(seconds * rate), 1)) / rate
    envelope = 0.1 * (1.2 + np.sin(2 * np.pi * 4 * times))
    return (envelope * np.random.default_rng(0).standard_normal(len(times))).clip(-1, 1).astype(np.float32)


def _times(
    recognizers: dict[str, Recognizer], audio: NDArray[np.float32], calls: int
) -> dict[str, NDArray[np.float64]]:
    """ms of each call, (calls,), by precision."""
    times: dict[str, list[float]] = {name: [] for name in recognizers}
    for call in range(-WARM_UP, calls):
        # Each goes first every other time: who follows may find the caches warm or cold.
        for name in list(recognizers)[:: 1 if call % 2 else -1]:
            start = time.perf_counter()
            recognizers[name].predict(audio, gate=False)  # noise is no speech: no graph would run
            if call >= 0:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: np.array(row) for name, row in times.items()}


def _summary(seconds: float, times: dict[str, NDArray[np.float64]]) -> list[Latency]:
    rows = []
    for name, row in times.items():
        ratio = None
        if name != "fp32" and "fp32" in times:
            ratio = float(np.median(row / times["fp32"]))
        p50, p90, p99 = (float(value) for value in np.percentile(row, (50, 90, 99)))
        rows.append(Latency(name, seconds, len(row), p50, p90, p99, ratio))
    return rows
