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
from mifuse.exporting.timing import summary
from mifuse_runtime import Recognizer, engines
from mifuse_runtime.bundle import load
from mifuse_runtime.settings import NO_SPEECH

# Instructions that decide how fast integer and bf16 kernels are, as Linux names them.
INSTRUCTIONS = {"avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm"}
Call = Callable[[NDArray[np.float32]], object]
Turn = tuple[str, str]  # precision, kind
# The public call, the same with gate=False, the whole graph alone, which has the gate in it.
KINDS = ("predict", "ungated", "graph")
COMPARED = ("predict", "graph")  # between runs
ROUNDS = 10  # each loads the models anew, and so into other memory: see timing.py
WARM_UP = 5  # calls of a round: the first ones allocate memory and fill the caches


@dataclass(frozen=True)
class Latency:
    """Times of `calls` calls on `seconds` of audio, ms."""

    precision: str
    seconds: float
    calls: int
    p50: float  # of the medians of the rounds
    p90: float
    p99: float
    again: tuple[float, float] | None  # where the p50 of 19 of 20 other runs is expected; None of one round
    ratio: float | None  # int8: median of time over that of the fp32 call beside it; None without fp32
    ungated: float  # median of the call with gate=False
    graph: float  # median of the graph alone
    over_graph: float  # median of the call over the graph's run beside it
    rounds: dict[str, tuple[float, ...]]  # the median of each round, of predict and of the graph


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

    Calls of the precisions take turns, so that a machine that slows down slows them all, in `ROUNDS` rounds
    or, of fewer calls, as many as there are calls.

    Args:
        seconds: lengths of audio.
        calls: timed calls of each precision and length, after the warm-up.
        progress: called after each round.

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
    found: dict[float, dict[Turn, list[NDArray[np.float64]]]] = {length: {} for length in seconds}
    for part in np.array_split(np.arange(calls), min(ROUNDS, calls)):
        recognizers = {
            name: Recognizer.load(bundle, engine=engine, threads=threads, precision=name)
            for name in precisions
        }
        graphs = {name: engines.start(bundle, content, engine, name, threads) for name in precisions}
        for length in seconds:
            audio = voice(length, content.sample_rate)
            turns = _turns(recognizers, graphs, audio)
            for turn, times in _times(turns, audio, len(part)).items():
                found[length].setdefault(turn, []).append(times)
        if progress:
            progress()
    return [row for length in seconds for row in _summary(length, found[length])]


def _turns(
    recognizers: Mapping[str, Recognizer], graphs: Mapping[str, Call], audio: NDArray[np.float32]
) -> dict[Turn, Call]:
    """All that is timed."""
    # Where a bundle's own gate takes the voice for none, no graph would be run.
    gate = next(iter(recognizers.values())).predict(audio).state != NO_SPEECH
    turns: dict[Turn, Call] = {}
    for name, recognizer in recognizers.items():
        turns[name, "predict"] = partial(recognizer.predict, gate=gate)
        turns[name, "ungated"] = partial(recognizer.predict, gate=False)
        turns[name, "graph"] = lambda samples, run=graphs[name]: run(samples[None])  # type: ignore[misc]
    return turns


def voice(seconds: float, rate: int = 16_000) -> NDArray[np.float32]:
    """A voice of harmonics in syllables, (n,), that the gate of speech takes for speech."""
    times = np.arange(max(int(seconds * rate), 1)) / rate
    phase = 2 * np.pi * np.cumsum(140 * (1 + 0.1 * np.sin(4 * times))) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, min(30, rate // 320)))
    return np.asarray(0.1 * harmonics * np.abs(np.cos(8 * times)), np.float32)


def _times(
    turns: Mapping[Turn, Call], audio: NDArray[np.float32], calls: int
) -> dict[Turn, NDArray[np.float64]]:
    """ms of each call of a round, (calls,)."""
    times: dict[Turn, list[float]] = {turn: [] for turn in turns}
    for number in range(-WARM_UP, calls):
        # Each goes first every other time: who follows may find the caches warm or cold.
        for turn in list(turns)[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            turns[turn](audio)
            if number >= 0:
                times[turn].append(1000 * (time.perf_counter() - start))
    return {turn: np.array(row) for turn, row in times.items()}


def _summary(seconds: float, found: Mapping[Turn, Sequence[NDArray[np.float64]]]) -> list[Latency]:
    rows = []
    times = {turn: np.concatenate(rounds) for turn, rounds in found.items()}
    for name in dict.fromkeys(name for name, _ in times):
        row, ungated, graph = (times[name, kind] for kind in KINDS)
        ratio = None
        if name != "fp32" and ("fp32", "predict") in times:
            ratio = float(np.median(row / times["fp32", "predict"]))
        of = summary(found[name, "predict"])
        bare, alone, over = (float(np.median(part)) for part in (ungated, graph, row / graph))
        rounds = {kind: summary(found[name, kind]).rounds for kind in COMPARED}
        rows.append(
            Latency(
                name, seconds, of.calls, of.p50, of.p90, of.p99, of.again, ratio, bare, alone, over, rounds
            )
        )
    return rows
