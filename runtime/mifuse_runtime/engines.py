"""The engines that run a bundle's graphs: ONNX Runtime, and OpenVINO where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mifuse_runtime.audio import Floats
from mifuse_runtime.bundle import DIMENSIONS, EMBEDDING, POWER, SPEECH, Bundle, read
from mifuse_runtime.errors import BundleError, MifuseError
from mifuse_runtime.frontend import MelPower
from mifuse_runtime.graph import Ceiling, Engine, Graph, onnx_network, openvino_network
from mifuse_runtime.shapes import GraphError


class OnnxRuntime:
    """ONNX Runtime on the CPU, without an arena: memory goes back after each call."""

    name = "onnxruntime"

    def __init__(self, graph: Graph, threads: int, content: bytes) -> None:
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
        # It would take a file with certain letters near its beginning for its own format, unseen by us.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._ceiling = graph.ceiling(onnx_network(content))
        except GraphError as error:
            raise _unusable(graph.path, str(error)) from error
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise _refused(graph.path, error, f"onnxruntime {onnxruntime.__version__}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = ([i.name for i in inputs], [o.name for o in outputs])
        if found != ([graph.input], list(graph.outputs)):
            raise _unusable(graph.path, f"its inputs and outputs are {found[0]} and {found[1]}")
        self.graph = graph

    def __call__(self, batch: Floats) -> Floats:
        return self.answers(batch)[0]

    def answers(self, batch: Floats) -> list[Floats]:
        check(self, self._ceiling, batch)
        try:
            found: list[Floats] = self._session.run(self.graph.outputs, {self.graph.input: batch})
        except Exception as error:  # as above
            raise _failed(self, error) from error
        return beside(found, self.graph)


class OpenVino:
    """OpenVINO on the CPU; the extra `openvino` brings it."""

    name = "openvino"

    def __init__(self, graph: Graph, threads: int, content: bytes, weights: bytes) -> None:
        import threading

        from mifuse_runtime.quiet import import_openvino

        openvino = import_openvino()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Its own choice is bf16 where the CPU has it, which moves probabilities by more than 1e-3.
            "INFERENCE_PRECISION_HINT": "f32",
            # Pinned, a call waits for its core while others are free: 3.9 for 0.9 ms on a busy machine.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._ceiling = graph.ceiling(openvino_network(content, weights))
        except GraphError as error:
            raise _unusable(graph.path, str(error)) from error
        try:
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(content, weights), "CPU", settings)
            self._request, self._tensor = compiled.create_infer_request(), openvino.Tensor
            self._request.get_tensor(graph.input)
        except Exception as error:  # RuntimeError, as a rule
            raise _refused(graph.path, error, f"openvino {openvino.__version__}") from error
        self.graph = graph
        self._lock = threading.Lock()  # a request serves one thread at a time

    def __call__(self, batch: Floats) -> Floats:
        return self.answers(batch)[0]

    def answers(self, batch: Floats) -> list[Floats]:
        check(self, self._ceiling, batch)
        shared = np.require(batch, np.float32, ("C", "W"))
        try:
            with self._lock:
                # Not as a dictionary, which is copied and looked through for 0.1 ms.
                self._request.set_tensor(self.graph.input, self._tensor(shared, shared_memory=True))
                self._request.infer(share_outputs=True)
                # A copy: the next call reuses it.
                found = [np.array(self._request.get_tensor(name).data) for name in self.graph.outputs]
        except Exception as error:  # as above
            raise _failed(self, error) from error
        return beside(found, self.graph)


def beside(found: list[Floats], graph: Graph) -> list[Floats]:
    """The outputs of the answer as one (batch, C + V), then the others."""
    size = sum(name not in (SPEECH, EMBEDDING) for name in graph.outputs)
    return found if size == 1 else [np.concatenate(found[:size], axis=-1), *found[size:]]


# Each is given the graph, threads, and the contents of its files.
ENGINES: dict[str, Callable[..., Engine]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def files(engine: str, file: str) -> Sequence[str]:
    """The files of a model."""
    return (file, file.removesuffix(".xml") + ".bin") if engine == "openvino" else (file,)


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
        beside = bundle.labels and bundle.dimensions
        said = {DIMENSIONS: beside, SPEECH: bundle.gated and not front, EMBEDDING: bundle.speaker}
        outputs = (bundle.output, *(name for name, there in said.items() if there))
        graph = Graph(folder / file, POWER if front else bundle.input, outputs, front, bundle.sample_rate)
        contents = [read(folder, bundle, part) for part in files(name, file)]
        return ENGINES[name](graph, threads, *contents)

    if engine != "auto":
        return started(engine)
    from mifuse_runtime.fastest import fastest

    return fastest(ENGINES, bundle, precision, threads, started, cache=cache, body=body)


def check(engine: Engine, ceiling: Ceiling, batch: Floats) -> None:
    """Refuse a batch that would take too much.

    Raises:
        BundleError: how much.
    """
    try:
        ceiling.check(batch.shape)
    except GraphError as error:
        raise BundleError(
            f"{engine.graph.path} does not take audio of this length ({error}): "
            "give shorter clips, or a stream"
        ) from error


def _failed(engine: Engine, error: Exception) -> BundleError:
    line = " ".join(str(error).split())[-200:]
    return BundleError(f"{engine.graph.path} failed in {engine.name} ({line}): export the bundle again")


def _unusable(path: Path, reason: str) -> BundleError:
    return BundleError(f"{path} cannot be run ({reason}): export the bundle again")


def _refused(path: Path, error: Exception, engine: str) -> BundleError:
    # The reason is at the end, behind places in the engine's source.
    line = " ".join(str(error).split())[-200:]
    return BundleError(f"{path} cannot be run by {engine} ({line}): upgrade it, or export the bundle again")
