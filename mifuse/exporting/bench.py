"""Latency of a bundle on this machine: the public call `Recognizer.predict`, and the graph alone."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mifuse.errors import MifuseError
from mifuse_runtime import Recognizer, engines
from mifuse_runtime.bundle import load
from mifuse_runtime.settings import NO_SPEECH

# Instructions that decide how fast integer and bf16 kernels are, as Linux names them.
INSTRUCTIONS = {"avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm"}
Call = Callable[[NDArray[np.float32]], object]
KINDS = ("predict", "ungated", "graph")  # the public call, the same with gate=False, the whole graph alone
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
    ungated: float  # median of the call with gate=False
    graph: float  # median of the graph alone
    over_graph: float  # median of the call with gate=False over the graph's run beside it


@dataclass(frozen=True)
class Machine:
    """Where a measurement was made."""

    cpu: str  # and which of `INSTRUCTIONS` it has
    cores: int  # that this process may use
    load: float | None  # other work in the last minute, in cores; None where the system does not say
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
    content = load(bundle)
    precisions = [name for name in ("fp32", "fp16", "int8") if engine in content.models.get(name, {})]
    if not precisions:
        raise MifuseError(f"{bundle} has no model for {engine}: export it with --format")
    recognizers = {
        name: Recognizer.load(bundle, engine=engine, threads=threads, precision=name) for name in precisions
    }
    graphs = {name: engines.start(bundle, content, engine, name, threads) for name in precisions}
    found = []
    for length in seconds:
        audio = voice(length, content.sample_rate)
        # Where a bundle's own gate takes the voice for none, no graph would be run.
        gate = recognizers[precisions[0]].predict(audio).state != NO_SPEECH
        turns: dict[tuple[str, str], Call] = {}
        for name in precisions:
            predict = recognizers[name].predict
            turns[name, "predict"] = partial(predict, gate=gate)
            turns[name, "ungated"] = partial(predict, gate=False)
            turns[name, "graph"] = lambda samples, run=graphs[name]: run(samples[None])  # type: ignore[misc]
        found += _summary(length, _times(turns, audio, calls))
        if progress:
            progress()
    return found


def voice(seconds: float, rate: int = 16_000) -> NDArray[np.float32]:
    """A voice of harmonics in syllables, (n,), that the gate of speech takes for speech."""
    times = np.arange(max(int(seconds * rate), 1)) / rate
    phase = 2 * np.pi * np.cumsum(140 * (1 + 0.1 * np.sin(4 * times))) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, min(30, rate // 320)))
    return np.asarray(0.1 * harmonics * np.abs(np.cos(8 * times)), np.float32)


def _times(
    turns: Mapping[tuple[str, str], Call], audio: NDArray[np.float32], calls: int
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """ms of each call, (calls,), by precision and kind."""
    times: dict[tuple[str, str], list[float]] = {turn: [] for turn in turns}
    for number in range(-WARM_UP, calls):
        # Each goes first every other time: who follows may find the caches warm or cold.
        for turn in list(turns)[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            turns[turn](audio)
            if number >= 0:
                times[turn].append(1000 * (time.perf_counter() - start))
    return {turn: np.array(row) for turn, row in times.items()}


def _summary(seconds: float, times: Mapping[tuple[str, str], NDArray[np.float64]]) -> list[Latency]:
    rows = []
    for name in dict.fromkeys(name for name, _ in times):
        row, ungated, graph = (times[name, kind] for kind in KINDS)
        ratio = None
        if name != "fp32" and ("fp32", "predict") in times:
            ratio = float(np.median(row / times["fp32", "predict"]))
        p50, p90, p99 = (float(value) for value in np.percentile(row, (50, 90, 99)))
        alone = (float(np.median(part)) for part in (ungated, graph, ungated / graph))
        rows.append(Latency(name, seconds, len(row), p50, p90, p99, ratio, *alone))
    return rows
