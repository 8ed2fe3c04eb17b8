"""The engines that run a bundle's graphs: ONNX Runtime, and OpenVINO where it is installed."""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mifuse_runtime.audio import Floats
from mifuse_runtime.bundle import POWER, Bundle
from mifuse_runtime.errors import BundleError, MifuseError
from mifuse_runtime.frontend import MelPower
from mifuse_runtime.graph import onnx_problem, openvino_problem

_CALLS = 15  # of each engine that `auto` times
_CHOSEN: dict[str, str] = {}  # what `auto` found in this process


@dataclass(frozen=True)
class Graph:
    """A model file, and what goes in and comes out."""

    path: Path
    input: str
    output: str
    front: MelPower | None  # what makes its input of samples; None: it takes samples


class Engine(Protocol):
    """Runs a graph: samples (batch, n), or what its front end makes of them -> probabilities (batch, C)."""

    name: str
    graph: Graph

    def __call__(self, batch: Floats) -> Floats: ...


class OnnxRuntime:
    """ONNX Runtime on the CPU, without an arena: memory goes back after each call."""

    name = "onnxruntime"

    def __init__(self, graph: Graph, threads: int) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        # A plan is kept for each input length ever seen: clips of all lengths would grow it without end.
        options.enable_mem_pattern = False
        options.log_severity_level = 4  # what matters comes as an exception
        content = graph.path.read_bytes()
        if problem := onnx_problem(content):
            raise _unusable(graph.path, problem)
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise _refused(graph.path, error, f"onnxruntime {onnxruntime.__version__}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = ([i.name for i in inputs], [o.name for o in outputs])
        if found != ([graph.input], [graph.output]):
            raise _unusable(graph.path, f"its inputs and outputs are {found[0]} and {found[1]}")
        self.graph = graph

    def __call__(self, batch: Floats) -> Floats:
        probs: Floats = self._session.run([self.graph.output], {self.graph.input: batch})[0]
        return probs


class OpenVino:
    """OpenVINO on the CPU; the extra `openvino` brings it."""

    name = "openvino"

    def __init__(self, graph: Graph, threads: int) -> None:
        import threading

        from mifuse_runtime.quiet import import_openvino

        openvino = import_openvino()
        content = (graph.path.read_bytes(), graph.path.with_suffix(".bin").read_bytes())
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Its own choice is bf16 where the CPU has it, which moves probabilities by more than 1e-3.
            "INFERENCE_PRECISION_HINT": "f32",
            # Pinned, a call waits for its core while others are free: 3.9 for 0.9 ms on a busy machine.
            "ENABLE_CPU_PINNING": False,
        }
        if problem := openvino_problem(content[0], len(content[1])):
            raise _unusable(graph.path, problem)
        core = openvino.Core()
        try:
            compiled = core.compile_model(core.read_model(*content), "CPU", settings)
            self._request, self._tensor = compiled.create_infer_request(), openvino.Tensor
            self._request.get_tensor(graph.input)
        except RuntimeError as error:
            raise _refused(graph.path, error, f"openvino {openvino.__version__}") from error
        self.graph = graph
        self._lock = threading.Lock()  # a request serves one thread at a time

    def __call__(self, batch: Floats) -> Floats:
        shared = np.require(batch, np.float32, ("C", "W"))
        with self._lock:
            # Not as a dictionary, which is copied and looked through for 0.1 ms.
            self._request.set_tensor(self.graph.input, self._tensor(shared, shared_memory=True))
            self._request.infer(share_outputs=True)
            # A copy: the next call reuses it.
            return np.array(self._request.get_tensor(self.graph.output).data)


ENGINES: dict[str, Callable[[Graph, int], Engine]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def start(
    folder: Path,
    bundle: Bundle,
    engine: str,
    precision: str | None,
    threads: int,
    *,
    cache: Path | None = None,
    body: bool = False,
) -> Engine:
    """The engine of that name, or for "auto" the fastest, with the bundle's model loaded.

    Args:
        body: take the body where the bundle has one, behind NumPy's front end: as fast, and streams need it.

    Raises:
        MifuseError: no such engine, not installed, or a bad number of threads.
        BundleError: the bundle has no model for it, or one that it cannot run.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise MifuseError(f"threads is {threads!r}: use 1 or more")
    if engine not in ("auto", *ENGINES):
        raise MifuseError(f"unknown engine {engine!r}: use auto or one of {', '.join(ENGINES)}")

    def started(name: str) -> Engine:
        file, front = bundle.model(name, precision), None
        if body and (cut := bundle.body(name, precision)):
            file, front = cut, MelPower(bundle.frontend, bundle.sample_rate)
        graph = Graph(folder / file, POWER if front else bundle.input, bundle.output, front)
        return ENGINES[name](graph, threads)

    if engine != "auto":
        return started(engine)
    models = bundle.models.get(precision or bundle.default, {})
    able = [name for name in ENGINES if name in models and importlib.util.find_spec(name)]
    if len(able) < 2:
        return started(able[0] if able else "onnxruntime")
    import hashlib  # 3.4 MB: it loads OpenSSL

    what = (sorted(bundle.files.items()), precision or bundle.default, threads, body, platform.platform())
    key = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    return _fastest(able, started, key, cache, int(bundle.window * bundle.sample_rate))


def _fastest(
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


def _unusable(path: Path, reason: str) -> BundleError:
    return BundleError(f"{path} cannot be run ({reason}): export the bundle again")


def _refused(path: Path, error: Exception, engine: str) -> BundleError:
    # The reason is at the end, behind places in the engine's source.
    line = " ".join(str(error).split())[-200:]
    return BundleError(f"{path} cannot be run by {engine} ({line}): upgrade it, or export the bundle again")
