"""What streaming costs, against the goals: time of a hop, share of a core, memory, delay, an hour of audio.

    python -m benchmarks.streaming [bundle/] [--soak 3600] [--threads 8 --streams 64] [--json FILE]
    python -m benchmarks.streaming --before c2068dc^    # the last commit whose gate was not a network

Without a bundle, a student `s` with random weights is exported to int8: weights do not matter for time. CPU
times are of the thread, so that a busy machine disturbs them less than wall times. `--soak` streams that many
seconds of audio in random chunks; `--threads` compares streams in threads with one alone for `--seconds`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.unchanged import check_out
from mifuse.exporting.bench import voice
from mifuse_runtime import Prediction, Recognizer, engines
from mifuse_runtime import bundle as bundles
from mifuse_runtime.audio import Floats

ROOT = Path(__file__).resolve().parents[1]
RATE, WINDOW, HOP = 16_000, 3.0, 0.25

Row = tuple[str, float, str, float]  # what, measured, unit, goal

# Peak memory comes from /proc: ru_maxrss may count what this process held when it forked.
MEMORY = """
import sys, numpy, onnxruntime
if sys.argv[1:] == ["-"]:
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena, options.intra_op_num_threads = False, 1
    session = onnxruntime.InferenceSession(sys.stdin.buffer.read(), options)
    session.run(None, {"x": numpy.zeros(1, "f4")})
elif len(sys.argv) > 1:
    from mifuse_runtime import Recognizer
    stream = Recognizer.load(sys.argv[1]).stream(window=3.0, hop=0.25)
    for start in range(0, 480_000, 4000):  # a voice in syllables
        times = numpy.arange(start, start + 4000) / 16_000
        phase = 880 * times - 22 * numpy.cos(4 * times)
        chunk = sum(numpy.sin(k * phase) / k for k in range(1, 30)) * abs(numpy.cos(8 * times))
        found = stream.feed((0.1 * chunk).astype("f4"))
    assert found[-1].speech > 0.1, "the graph was not run"
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 1000)
"""


# Bundle and PYTHONPATH given: median and p90 of the wall seconds of a hop, with whatever runtime that is.
HOPS = """
import sys, time, numpy
from mifuse_runtime import Recognizer
samples = numpy.load(sys.argv[2])
stream = Recognizer.load(sys.argv[1]).stream(window=3.0, hop=0.25)
stream.feed(samples[:48_000])
spent = []
for start in range(48_000, samples.size - 3999, 4000):
    begin = time.perf_counter()
    found = stream.feed(samples[start : start + 4000])
    spent.append(time.perf_counter() - begin)
    assert found[0].label != "no speech", "the graph was not run"
print(*numpy.percentile(spent[50:], (50, 90)))
"""


def hops(recognizer: Recognizer, window: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Wall and CPU seconds of each of `count` hops, (count,) each."""
    samples = voice(window + count * HOP)
    stream = recognizer.stream(window=window, hop=HOP)
    stream.feed(samples[: round(window * RATE)])
    wall, cpu = [], []
    for start in range(round(window * RATE), samples.size, round(HOP * RATE)):
        begin, cpu_begin = time.perf_counter(), time.thread_time()
        found = stream.feed(samples[start : start + round(HOP * RATE)])
        wall.append(time.perf_counter() - begin)
        cpu.append(time.thread_time() - cpu_begin)
        assert found[0].label in recognizer.labels, "the graph was not run"
    return np.array(wall), np.array(cpu)


def costs(recognizer: Recognizer, rounds: int = 8, count: int = 50) -> list[Row]:
    """Time of a hop for windows of 3 and 10 s, with the graph and without, in turns."""
    times: dict[str, list[np.ndarray]] = defaultdict(list)
    graph, idle = recognizer._body, Idle(recognizer)
    gated = recognizer.bundle
    open_ = replace(gated, stream=replace(gated.stream, voice=0.0))  # what is loud is speech
    for _ in range(rounds):
        for name, window in (("3 s", WINDOW), ("10 s", 10.0)):
            wall, cpu = hops(recognizer, window, count)
            times[f"wall {name}"].append(wall)
            times[name].append(cpu)
            recognizer._body = idle
            times[f"beside {name}"].append(hops(recognizer, window, count)[1])
            recognizer._body = graph
            recognizer.bundle = open_
            times[f"open {name}"].append(hops(recognizer, window, count)[1])
            recognizer.bundle = gated
    found = {name: np.concatenate(parts) for name, parts in times.items()}
    typical = {name: float(np.median(values)) for name, values in found.items()}
    mean = float(found["3 s"].mean())
    return [
        ("hop, wall p90", 1e3 * float(np.percentile(found["wall 3 s"], 90)), "ms", 0.6),
        ("hop, CPU p90", 1e3 * float(np.percentile(found["3 s"], 90)), "ms", 0.6),
        ("share of a core", 100 * mean / HOP, "%", 0.3),
        ("streams on one core", HOP / mean, "", -300),
        ("hop, CPU median", 1e3 * typical["3 s"], "ms", 0.6),
        ("of it the gate of speech", 1e3 * (typical["3 s"] - typical["open 3 s"]), "ms", 0.6),
        ("hop with that gate / without", typical["3 s"] / typical["open 3 s"], "x", 1.05),
        ("of it beside the graph", 1e3 * typical["beside 3 s"], "ms", 0.6),
        ("hop of 10 s / of 3 s", typical["10 s"] / typical["3 s"], "x", 1.3),
        ("the same beside the graph", typical["beside 10 s"] / typical["beside 3 s"], "x", 1.3),
    ]


def growth(bundle: Path, commit: str, rounds: int = 8) -> list[Row]:
    """Time of a hop over that with the runtime of an earlier commit, in processes that take turns."""
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "bundle"
        shutil.copytree(bundle, old)
        content = json.loads((old / bundles.NAME).read_text(encoding="utf-8"))
        content.pop("gated", None)  # it reads neither, and runs the body alone
        content["stream"].pop("voice", None)
        (old / bundles.NAME).write_text(json.dumps(content), encoding="utf-8")
        check_out(commit, Path(folder) / "tree")
        np.save(Path(folder) / "voice.npy", voice(WINDOW + 400 * HOP))
        ways = ((old, Path(folder) / "tree" / "runtime"), (bundle, ROOT / "runtime"))
        times = np.array([[_hop(*way, Path(folder) / "voice.npy") for way in ways] for _ in range(rounds)])
    p50, p90 = np.median(times[:, 1] / times[:, 0], axis=0)
    return [
        (f"hop, wall p50, of {commit}", 1e3 * float(times[:, 0, 0].min()), "ms", 0.6),
        ("the same now", 1e3 * float(times[:, 1, 0].min()), "ms", 0.6),
        ("now / then, median of the p50", float(p50), "x", 1.05),
        ("now / then, median of the p90", float(p90), "x", 1.05),
    ]


def _hop(bundle: Path, runtime: Path, samples: Path) -> list[float]:
    """Median and p90 of a process of its own, seconds."""
    command = [sys.executable, "-c", HOPS, str(bundle.resolve()), str(samples)]
    environment = os.environ | {"PYTHONPATH": str(runtime), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [float(word) for word in run.stdout.split()]


class Idle:
    """In place of the engine: an answer that costs nothing, so that what is beside the graph remains."""

    name = "idle"

    def __init__(self, recognizer: Recognizer) -> None:
        classes = len(recognizer.labels)
        self.graph = recognizer._body.graph
        self.answer = np.full((1, classes), 1 / classes, np.float32)

    def __call__(self, batch: Floats) -> Floats:
        return self.answer

    def answers(self, batch: Floats) -> list[Floats]:
        return [self.answer]


def forms(bundle: Path, calls: int = 150) -> list[str]:
    """CPU time of a clip by the whole graph and by NumPy's front end and the body, in turns: a table."""
    content = bundles.load(bundle)
    lines = ["| clip | whole graph | NumPy + body | of it NumPy |", "| --- | --: | --: | --: |"]
    whole, body = (engines.start(bundle, content, "onnxruntime", None, 1, body=cut) for cut in (False, True))
    front = body.graph.front
    if front is None:
        return lines
    for seconds in (1, 3, 10):
        samples = voice(seconds)
        ways = (
            lambda x=samples: whole(x[None]),
            lambda x=samples: body(front.clip(x)[None]),
            lambda x=samples: front.clip(x),
        )
        times = np.array([[spent(way) for way in ways] for _ in range(calls)])
        cells = (f"{1e3 * time:.2f} ms" for time in np.median(times, axis=0))
        lines.append(f"| {seconds} s | {' | '.join(cells)} |")
    return lines


def spent(way: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    begin = time.thread_time()
    way()
    return time.thread_time() - begin


def memory(bundle: Path) -> list[Row]:
    """Peak memory of a process that streams, one that runs a graph of one operator, one that only imports."""
    import onnx

    value = onnx.helper.make_tensor_value_info
    inputs, outputs = ([value(name, onnx.TensorProto.FLOAT, ["n"])] for name in "xy")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "one", inputs, outputs), opset_imports=opset, ir_version=9
    )

    def peak(*arguments: str) -> float:
        command = [sys.executable, "-c", MEMORY, *arguments]
        content = model.SerializeToString()
        run = subprocess.run(command, check=True, capture_output=True, cwd=ROOT / "runtime", input=content)
        return float(run.stdout)

    whole, session, imports = peak(str(bundle.resolve())), peak("-"), peak()
    return [
        ("peak memory", whole, "MB", 75),
        ("over an ONNX Runtime session of one operator", whole - session, "MB", 15),
        ("over importing ONNX Runtime", whole - imports, "MB", 15),
    ]


def delay(recognizer: Recognizer, utterances: int = 40) -> list[Row]:
    """From the end of an utterance to the first prediction that covers all of it; 48 kHz, 10 ms chunks."""
    rng = np.random.default_rng(0)
    delays = []
    for _ in range(utterances):
        end = rng.uniform(WINDOW, WINDOW + 1)
        samples = np.concatenate([voice(end, 48_000), np.zeros(48_000, np.float32)])
        stream = recognizer.stream(48_000, WINDOW, HOP)
        for number, start in enumerate(range(0, samples.size, 480), 1):
            begin = time.perf_counter()
            found: list[Prediction] = stream.feed(samples[start : start + 480])
            if found and found[-1].end >= end:
                delays.append(number * 0.01 - end + time.perf_counter() - begin)
                break
    return [("end of utterance to decision, worst", 1e3 * max(delays), "ms", 300)]


def soak(recognizer: Recognizer, seconds: float) -> list[Row]:
    """Audio in random chunks: how far memory and the time of a hop move."""
    rng = np.random.default_rng(0)
    minute = voice(60)
    stream = recognizer.stream(window=WINDOW, hop=HOP)
    resident, cpu, predictions = [], [], 0
    for number in range(round(seconds / 60)):
        at, begin = 0, time.thread_time()
        while at < minute.size:
            size = int(rng.integers(1, 16_000))
            predictions += len(stream.feed(minute[at : at + size]))
            at += size
        cpu.append(time.thread_time() - begin)
        if number:  # the first minute fills caches
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4.096e-3)
    assert predictions == round((seconds - WINDOW) / HOP) + 1
    quarter = max(1, len(cpu) // 4)
    return [
        (f"memory over {seconds:g} s moves by", max(resident) - min(resident), "MB", 4),
        ("last quarter / first, CPU", float(np.median(cpu[-quarter:]) / np.median(cpu[:quarter])), "x", 1.1),
    ]


def shared(recognizer: Recognizer, threads: int, streams: int, seconds: float) -> list[Row]:
    """Streams in threads; how many predictions differ from a single stream's."""
    samples = voice(10)
    with recognizer.stream(window=WINDOW, hop=HOP) as alone:
        wanted = alone.feed(samples)
    end = time.monotonic() + seconds

    def one(seed: int) -> tuple[int, int]:
        rng, streamed, wrong = np.random.default_rng(seed), 0, 0
        while time.monotonic() < end:
            with recognizer.stream(window=WINDOW, hop=HOP) as stream:
                cuts = np.sort(rng.integers(0, samples.size, 30))
                found = [p for chunk in np.split(samples, cuts) for p in stream.feed(chunk)]
            streamed += 1
            wrong += sum(not alike(p, q) for p, q in zip(found, wanted, strict=True))
        return streamed, wrong

    with ThreadPoolExecutor(threads) as pool:
        counts = list(pool.map(one, range(streams)))
    streamed, wrong = (sum(column) for column in zip(*counts, strict=True))
    return [
        (f"streams of 10 s in {threads} threads", streamed, "", -streams),
        ("predictions that differ", wrong, "", 0),
    ]


def alike(left: Prediction, right: Prediction) -> bool:
    close = np.allclose(list(left.scores.values()), list(right.scores.values()), atol=1e-5)
    return close and (left.state, left.end) == (right.state, right.end)


def make_bundle(folder: Path) -> Path:
    """The int8 student `s` with random weights."""
    import torch

    from mifuse.models.frontend import HOP as HOP_SAMPLES
    from mifuse.models.frontend import LOW_BINS, MEL_RANGE, N_MELS
    from mifuse.models.student import Student
    from mifuse_export import ExportConfig, export_bundle
    from mifuse_runtime.settings import FrontEnd

    torch.manual_seed(0)
    torch.set_num_threads(1)
    student = Student(size="s", prosody=True)
    clips = [voice(seconds) for seconds in (0.5, 1, 2, 3, 4)]
    return export_bundle(
        student,
        folder / "bundle",
        ExportConfig(int8=True, max_drop=100, force_int8=True),
        labels=student.labels,
        calibration=clips,
        frontend=FrontEnd(HOP_SAMPLES, N_MELS, *MEL_RANGE, folded=True, lowest=LOW_BINS),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="of audio, 120 or more")
    parser.add_argument(
        "--before", metavar="COMMIT", help="hold a hop against the runtime of that commit, alone"
    )
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="that --threads lasts (60)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if 0 < options.soak < 120:  # the first minute fills caches
        parser.error(f"--soak is {options.soak:g} s: use 120 or more")
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or make_bundle(Path(folder))
        recognizer = Recognizer.load(bundle)
        if options.before:
            rows, table = growth(bundle, options.before), []
        else:
            rows = costs(recognizer) + delay(recognizer) + memory(bundle)
            rows += soak(recognizer, options.soak) if options.soak else []
            table = forms(bundle)
        if options.threads:
            rows += shared(recognizer, options.threads, options.streams, options.seconds)
    print(f"{WINDOW:g} s window, {HOP:g} s hop, {recognizer!r}, {platform.machine()}")
    print("| what | measured | goal | of the goal |\n| --- | --: | --: | --: |")
    for what, measured, unit, goal in rows:
        sign, share = ("≥", -goal / measured) if goal < 0 else ("≤", measured / goal if goal else measured)
        print(f"| {what} | {measured:.3g} {unit} | {sign} {abs(goal):g} {unit} | {share:.2f} |")
    print("\n".join(["", *table]))
    if options.json:
        values: list[dict[str, Any]] = [
            {"what": what, "measured": measured, "unit": unit, "goal": abs(goal)}
            for what, measured, unit, goal in rows
        ]
        options.json.write_text(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
