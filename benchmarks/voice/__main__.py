"""The gate beside silero-vad, on speech among tones, music, hum, hiss, clicks, silence and breath.

    MIFUSE_CORPORA=… python -m benchmarks.voice            # 60 clips a corpus
    MIFUSE_CORPORA=… python -m benchmarks.voice --clean    # recordings that `predict` refuses as "no speech"
    MIFUSE_CORPORA=… python -m benchmarks.voice --clean --seconds 0.5    # the same of their loudest part
    python -m benchmarks.voice --fit                       # make vad.json anew (espeak-ng)

silero-vad (MIT) serves this measurement alone: pip install --no-deps silero-vad, for its ONNX file.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

import mifuse_runtime
from benchmarks.voice.sounds import FRAME, KINDS, RATE, Speech, mixed
from mifuse_runtime.audio import Floats, trim_silence
from mifuse_runtime.settings import Settings
from mifuse_runtime.vad import speech_frames, speech_share

CORPORA = ("ravdess", "nemo", "koremo")
LEVELS = (20, 10, 5, 0)  # dB of the speech over the rest


def main() -> None:
    """Print a table: false alarms, misses and balanced accuracy of both; then what a frame costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=60, help="of each corpus (60)")
    parser.add_argument("--levels", type=int, nargs="+", default=LEVELS, help="dB (20 10 5 0)")
    parser.add_argument("--fit", action="store_true", help="fit the network and write runtime's vad.json")
    parser.add_argument("--clean", action="store_true", help="count clean recordings without speech")
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="with --clean: of the loudest part (0: all)"
    )
    arguments = parser.parse_args()
    if arguments.clean:
        _clean(arguments.seconds)
        return
    if arguments.fit:
        from benchmarks.voice.fit import write

        write(Path(mifuse_runtime.__file__).with_name("vad.json"))
        return
    gates = {"ours": _ours, "silero-vad": _silero()}
    clips = _clips(arguments.clips)
    print(f"{len(clips)} clips; false alarms / misses / balanced accuracy in %")
    print(f"{'dB':>3} {'kind':8} " + " ".join(f"{name:>20}" for name in gates))
    spent = dict.fromkeys(gates, 0.0)
    frames = 0
    for decibels in arguments.levels:
        counts = {name: defaultdict(lambda: np.zeros(4)) for name in gates}
        for kind, made, speech, sure in mixed(clips, decibels, seed=decibels):
            frames += len(speech)
            for name, gate in gates.items():
                begin = time.thread_time()
                found = gate(made)
                spent[name] += time.thread_time() - begin
                other = ~speech & sure
                counts[name][kind] += (found[other].sum(), other.sum(), (~found[speech]).sum(), speech.sum())
        means = defaultdict(list)
        for kind in KINDS:
            cells = []
            for name in gates:
                alarms, others, misses, voiced = counts[name][kind]
                accuracy = 100 - 50 * (alarms / others + misses / voiced)
                means[name].append(accuracy)
                cells.append(f"{100 * alarms / others:5.1f} {100 * misses / voiced:5.1f} {accuracy:6.1f}")
            print(f"{decibels:3} {kind:8} " + " ".join(f"{cell:>20}" for cell in cells), flush=True)
        print(f"{decibels:3} {'mean':8} " + " ".join(f"{np.mean(means[name]):20.1f}" for name in gates))
    for name in gates:
        print(f"{name}: {1e6 * spent[name] / frames:.1f} µs of CPU a frame of 32 ms")


def _clean(seconds: float) -> None:
    """Recordings of each corpus, or their loudest seconds, in which the gate finds no speech: errors."""
    for corpus in CORPORA:
        folder = Path(_corpora()) / corpus
        names = {row["path"] for part in ("source", "target") for row in _rows(folder / f"{part}.csv")}
        refused = []
        for name in sorted(names):
            samples, rate = soundfile.read(folder / name, dtype="float32")
            part = _loudest(trim_silence(samples, rate), round(seconds * rate))
            if speech_share(part, Settings(), rate) < Settings().speech:
                refused.append(name)
        print(f"{corpus}: {len(refused)} of {len(names)} refused {' '.join(refused)}", flush=True)


def _loudest(samples: Floats, size: int) -> Floats:
    """The loudest part of so many samples; 0: all of them."""
    if not 0 < size < samples.size:
        return samples
    energy = np.cumsum(np.square(samples, dtype=np.float64))
    start = int(np.argmax(energy[size:] - energy[:-size]))
    return samples[start : start + size]


def _rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open(encoding="utf-8")))


def _corpora() -> str:
    folder = os.environ.get("MIFUSE_CORPORA")
    if not folder:
        raise SystemExit("set MIFUSE_CORPORA to the folder of the corpora")
    return folder


def _clips(count: int) -> list[Floats]:
    folder = _corpora()
    clips, rng = [], np.random.default_rng(1)
    for corpus in CORPORA:
        rows = _rows(Path(folder) / corpus / "source.csv")
        for row in rng.permutation(len(rows))[:count]:
            samples, _ = soundfile.read(Path(folder) / corpus / rows[row]["path"], dtype="float32")
            samples = samples[: 5 * RATE]
            clips.append(0.5 * 10 ** rng.uniform(-0.6, 0) * samples / np.abs(samples).max())
    return [clip.astype(np.float32) for clip in clips]


def _ours(samples: Floats) -> Speech:
    return speech_frames(samples.reshape(-1, FRAME), Settings())[0]


def _silero() -> Callable[[Floats], Speech]:
    """silero-vad's own ONNX file on one thread."""
    import onnxruntime

    found = importlib.util.find_spec("silero_vad")
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps silero-vad, for its ONNX file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    file = Path(found.origin).with_name("data") / "silero_vad.onnx"
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def gate(samples: Floats) -> Speech:
        state, before = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
        speech = []
        for at in range(0, samples.size, FRAME):
            taken = np.concatenate([before, samples[None, at : at + FRAME]], axis=1)
            given = {"input": taken, "state": state, "sr": np.array(RATE, np.int64)}
            probability, state = session.run(None, given)
            before = taken[:, -64:]
            speech.append(probability[0, 0] >= 0.5)
        return np.array(speech)

    return gate


main()
