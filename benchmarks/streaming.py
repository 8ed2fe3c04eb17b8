"""What streaming costs, against the goals: time of a hop, share of a core, memory, delay, an hour of audio.

    python -m benchmarks.streaming [bundle/] [--soak 60] [--json FILE]

Without a bundle, a student `s` with random weights is exported to int8: weights do not matter for time. CPU
times are of the thread, so that a busy machine disturbs them less than wall times.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mifuse_runtime import Prediction, Recognizer

ROOT = Path(__file__).resolve().parents[1]
RATE, WINDOW, HOP = 16_000, 3.0, 0.25

Row = tuple[str, float, str, float]  # what, measured, unit, goal

# Peak memory comes from /proc: ru_maxrss may count what this process held when it forked.
MEMORY = """
import sys, numpy, onnxruntime
if len(sys.argv) > 1:
    from mifuse_runtime import Recognizer
    samples = (0.3 * numpy.sin(0.05 * numpy.arange(16000 * 30))).astype("f4")
    stream = Recognizer.load(sys.argv[1]).stream(window=3.0, hop=0.25)
    for start in range(0, samples.size, 4000):
        stream.feed(samples[start : start + 4000])
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 1000)
"""


def voice(seconds: float, rate: int = RATE) -> np.ndarray:
    """Harmonics in syllables, int16 (n,): the voice gate lets it pass, so that every hop runs the graph."""
    at = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(140 * (1 + 0.1 * np.sin(4 * at))) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 30))
    return (6000 * harmonics * np.maximum(0, np.sin(16 * at)) / 2).astype(np.int16)


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
    """Time of a hop for windows of 3 and 10 s, and of the graph alone, in turns."""
    times: dict[str, list[np.ndarray]] = {"wall": [], "3 s": [], "10 s": [], "graph": [], "graph 10 s": []}
    for _ in range(rounds):
        wall, cpu = hops(recognizer, WINDOW, count)
        times["wall"].append(wall)
        times["3 s"].append(cpu)
        times["10 s"].append(hops(recognizer, 10.0, count)[1])
        times["graph"].append(graph(recognizer, WINDOW, count))
        times["graph 10 s"].append(graph(recognizer, 10.0, count))
    found = {name: np.concatenate(parts) for name, parts in times.items()}
    typical = {name: float(np.median(values)) for name, values in found.items()}
    beside = {w: typical[w] - typical[g] for w, g in (("3 s", "graph"), ("10 s", "graph 10 s"))}
    mean = float(found["3 s"].mean())
    return [
        ("hop, wall p90", 1e3 * float(np.percentile(found["wall"], 90)), "ms", 0.6),
        ("hop, CPU p90", 1e3 * float(np.percentile(found["3 s"], 90)), "ms", 0.6),
        ("share of a core", 100 * mean / HOP, "%", 0.3),
        ("streams on one core", HOP / mean, "", -300),
        ("hop / graph alone", typical["3 s"] / typical["graph"], "x", 1.25),
        ("hop of 10 s / of 3 s", typical["10 s"] / typical["3 s"], "x", 1.3),
        ("the same beside the graph", beside["10 s"] / beside["3 s"], "x", 1.3),
    ]


def graph(recognizer: Recognizer, window: float, count: int) -> np.ndarray:
    """CPU seconds of the graph alone on a window."""
    samples = voice(window).astype(np.float32) / 32768
    front = recognizer._front
    batch = (front.clip(samples) if front else samples)[None]
    times = []
    for _ in range(count):
        begin = time.thread_time()
        recognizer._run(batch)
        times.append(time.thread_time() - begin)
    return np.array(times)


def memory(bundle: Path) -> list[Row]:
    """Peak memory of a process that streams and of one that only imports ONNX Runtime and NumPy."""
    command = [sys.executable, "-c", MEMORY]
    bare, whole = (
        float(subprocess.run([*command, *more], check=True, capture_output=True, cwd=ROOT / "runtime").stdout)
        for more in ([], [str(bundle.resolve())])
    )
    return [("peak memory", whole, "MB", 75), ("over bare ONNX Runtime", whole - bare, "MB", 15)]


def delay(recognizer: Recognizer, utterances: int = 40) -> list[Row]:
    """From the end of an utterance to the first prediction that has heard all of it; 48 kHz, 10 ms chunks."""
    rng = np.random.default_rng(0)
    delays = []
    for _ in range(utterances):
        end = rng.uniform(WINDOW, WINDOW + 1)
        samples = np.concatenate([voice(end, 48_000), np.zeros(48_000, np.int16)])
        stream = recognizer.stream(48_000, WINDOW, HOP)
        for number, start in enumerate(range(0, samples.size, 480), 1):
            begin = time.perf_counter()
            found: list[Prediction] = stream.feed(samples[start : start + 480])
            if found and found[-1].end >= end:
                delays.append(number * 0.01 - end + time.perf_counter() - begin)
                break
    return [("end of utterance to decision, worst", 1e3 * max(delays), "ms", 300)]


def hour(recognizer: Recognizer, seconds: float = 3600.0) -> list[Row]:
    """An hour of audio in random chunks: how far memory and the time of a hop move."""
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
        ("memory over an hour moves by", max(resident) - min(resident), "MB", 4),
        ("last quarter / first, CPU", float(np.median(cpu[-quarter:]) / np.median(cpu[:quarter])), "x", 1.1),
    ]


def soak(recognizer: Recognizer, seconds: float) -> list[Row]:
    """64 streams in 8 threads; how many predictions differ from a single stream's."""
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

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(one, range(64)))
    streamed, wrong = (sum(column) for column in zip(*counts, strict=True))
    return [("streams of 10 s in 8 threads", streamed, "", -64), ("predictions that differ", wrong, "", 0)]


def alike(left: Prediction, right: Prediction) -> bool:
    close = np.allclose(list(left.scores.values()), list(right.scores.values()), atol=1e-5)
    return close and (left.state, left.end) == (right.state, right.end)


def make_bundle(folder: Path) -> Path:
    """The int8 student `s` with random weights."""
    import torch

    from mifuse.frontend import HOP as HOP_SAMPLES
    from mifuse.frontend import MEL_RANGE, N_MELS
    from mifuse.student import Student
    from mifuse_export import export_bundle
    from mifuse_runtime.settings import FrontEnd

    torch.manual_seed(0)
    torch.set_num_threads(1)
    student = Student(size="s")
    clips = [voice(seconds).astype(np.float32) / 32768 for seconds in (0.5, 1, 2, 3, 4)]
    return export_bundle(
        student,
        folder / "bundle",
        labels=student.labels,
        calibration=clips,
        int8=True,
        max_drop=100,
        force_int8=True,
        frontend=FrontEnd(HOP_SAMPLES, N_MELS, *MEL_RANGE),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="64 streams in 8 threads")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or make_bundle(Path(folder))
        recognizer = Recognizer.load(bundle)
        rows = costs(recognizer) + delay(recognizer) + memory(bundle) + hour(recognizer)
        if options.soak:
            rows += soak(recognizer, options.soak)
    print(f"{WINDOW:g} s window, {HOP:g} s hop, {recognizer!r}, {platform.machine()}")
    print("| what | measured | goal | of the goal |\n| --- | --: | --: | --: |")
    for what, measured, unit, goal in rows:
        sign, share = ("≥", -goal / measured) if goal < 0 else ("≤", measured / goal if goal else measured)
        print(f"| {what} | {measured:.3g} {unit} | {sign} {abs(goal):g} {unit} | {share:.2f} |")
    if options.json:
        table: list[dict[str, Any]] = [
            {"what": what, "measured": measured, "unit": unit, "goal": abs(goal)}
            for what, measured, unit, goal in rows
        ]
        options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
