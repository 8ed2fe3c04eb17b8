"""Runs in a peer's environment: loads it, then times calls as it is asked. NumPy and the peer alone."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = int(os.environ.get("PEER_THREADS", "1"))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = str(THREADS)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np  # noqa: E402, after the environment that it reads

RATE = 16_000
Call = Callable[[Any], object]


def _mifuse(model: str) -> Call:
    from mifuse_runtime import Recognizer

    folder, precision = model.rsplit(":", 1)
    return Recognizer.load(folder, precision=precision, threads=THREADS).predict


def _mifuse_hop(model: str) -> Call:
    """A hop of 0.25 s of a stream whose window of 3 s is full."""
    from mifuse_runtime import Recognizer

    folder, precision = model.rsplit(":", 1)
    stream = Recognizer.load(folder, precision=precision, threads=THREADS).stream(hop=0.25)
    fed = [0]

    def hop(samples: Any) -> object:
        while fed[0] < 3 * RATE:  # once
            fed[0] += RATE
            stream.feed(samples[:RATE])
        return stream.feed(samples[: RATE // 4])

    return hop


def _mlp(features: Callable[[Any], Any], width: int) -> Call:
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    trained = MLPClassifier((300,), max_iter=1)
    trained.fit(rng.normal(size=(40, width)), np.arange(40) % 4)
    return lambda samples: trained.predict_proba(features(samples)[None])


def _mfcc_mlp(_: str) -> Call:
    import librosa

    return _mlp(lambda samples: librosa.feature.mfcc(y=samples, sr=RATE, n_mfcc=40).mean(axis=1), 40)


def _tutorial_mlp(_: str) -> Call:
    import librosa

    def features(samples: Any) -> Any:
        shape = np.abs(librosa.stft(samples))
        parts = (
            librosa.feature.mfcc(y=samples, sr=RATE, n_mfcc=40),
            librosa.feature.chroma_stft(S=shape, sr=RATE),
            librosa.feature.melspectrogram(y=samples, sr=RATE),
        )
        return np.concatenate([part.mean(axis=1) for part in parts])

    return _mlp(features, 40 + 12 + 128)


def _opensmile(_: str) -> Call:
    import opensmile

    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    return lambda samples: smile.process_signal(samples, RATE)


def _session(model: str | Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _silero(_: str) -> Call:
    import importlib.util

    found = importlib.util.find_spec("silero_vad")
    assert found and found.submodule_search_locations
    session = _session(Path(found.submodule_search_locations[0]) / "data" / "silero_vad.onnx")
    rate = np.array(RATE, np.int64)

    def voiced(samples: Any) -> list[float]:
        state, before, found = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
        for at in range(0, len(samples) - 511, 512):
            frame = np.concatenate([before, samples[at : at + 512]])
            share, state = session.run(None, {"input": frame[None], "state": state, "sr": rate})
            before = frame[-64:]
            found.append(float(share[0, 0]))
        return found

    return voiced


def _onnx_samples(model: str) -> Call:
    session = _session(model)
    return lambda samples: session.run(None, {"samples": samples[None]})


def _onnx_mel(model: str) -> Call:
    session, mel = _session(model), np.zeros((1, 80, 3000), np.float32)
    return lambda _samples: session.run(None, {"mel": mel})


def _onnx_short_mel(model: str) -> Call:
    session, mel = _session(model), np.zeros((1, 1, 1000, 128), np.float32)
    return lambda samples: session.run(None, {"mel": mel[:, :, : len(samples) // 160]})


def _audonnx(model: str) -> Call:
    import tempfile

    import audonnx
    import onnx

    graph = onnx.load(Path(model.rsplit(":", 1)[0]) / "model.int8.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1  # it takes one free axis
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(graph, f"{folder}/model.onnx")
        host = audonnx.Model(f"{folder}/model.onnx", num_workers=THREADS)
    return lambda samples: host(samples, RATE)


CALLS: dict[str, Callable[[str], Call]] = {
    "mifuse": _mifuse,
    "mifuse_hop": _mifuse_hop,
    "mfcc_mlp": _mfcc_mlp,
    "tutorial_mlp": _tutorial_mlp,
    "opensmile": _opensmile,
    "silero": _silero,
    "onnx_samples": _onnx_samples,
    "onnx_mel": _onnx_mel,
    "onnx_short_mel": _onnx_short_mel,
    "audonnx": _audonnx,
}


def main() -> None:
    """`worker.py CALL MODEL AUDIO.npy`: a line when loaded, then N times [wall, CPU] in ms for each "S N"."""
    begin = time.perf_counter()
    name, model, audio = sys.argv[1:]
    samples = np.load(audio)
    call = CALLS[name](model)
    loaded = time.perf_counter()
    call(samples[: 3 * RATE])
    first = time.perf_counter()
    _say({"load_s": loaded - begin, "first_s": first - begin, "peak_mb": _peak_mb()})
    for line in sys.stdin:
        seconds, calls = line.split()
        part = samples[: int(seconds) * RATE]
        times = []
        for _ in range(int(calls)):
            start, cpu = time.perf_counter(), time.process_time()
            call(part)
            times.append([1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu)])
        _say(times)


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _peak_mb() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
