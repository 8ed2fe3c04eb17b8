"""Cost of adaptation against the number of clips: seconds and memory of each stage, and the ratio to linear.

    python -m benchmarks.scale [--clips 1000,10000] [--out FILE.json]

Synthetic clips; each number of clips is measured in a process of its own, on one thread, with an empty cache.
Seconds are CPU time, which other work on the machine changes little. Memory is what the process holds beside
mapped files, which the system takes back when it needs room (Linux only).
The number of training steps is fixed, so that a step should cost the same whatever there is to choose from.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from benchmarks.provenance import provenance
from benchmarks.workers import popen
from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip, read_manifest, write_manifest
from mifuse.demo.synth import make_domain
from mifuse.exporting.bench import machine
from mifuse.fusion.recipes import AdaptConfig
from mifuse.fusion.teaching import Teaching
from mifuse.models.features import Features
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer
from mifuse.teachers.draws import load_draws
from mifuse.voices.statistics import voice_statistics

T = TypeVar("T")
VOICES = 200  # clips that are synthesised; all others are these, cut and scaled at random
SPEAKERS = 20
STEPS = 20  # of training
STAGES = {
    "manifest": "read and check it",
    "decoding": "16 kHz samples of each clip, into the cache",
    "features": "log-mel, on disk",
    "statistics": "spectral and prosodic, on disk",
    "resume": "features and statistics again, from disk",
    "LALM": "its 8 draws a clip, from JSONL",
    "classifier": "its 8 draws a clip",
    "labels": "reference, fusion and refinement",
    "training": f"{STEPS} steps of 48 clips",
}


@dataclass
class Stage:
    """What one stage cost."""

    seconds: float  # CPU
    peak_mb: float  # above what was held when the stage began


def make_clips(folder: Path, count: int, seconds: float) -> Path:
    """Write `count` clips that all differ, from some hundred voices, and draws. Returns the manifest."""
    source = make_domain(
        folder / "voices", "phone", speakers=SPEAKERS, clips_per_speaker=VOICES // SPEAKERS, seconds=seconds
    )
    voices_ = read_manifest(source).clips
    samples = [_pcm(clip.path) for clip in voices_]
    rng = np.random.default_rng(0)
    clips = []
    for i in range(count):
        voice = i % len(voices_)
        gain, first = rng.uniform(0.3, 1.0), int(rng.integers(0, SAMPLE_RATE // 20))
        path = folder / f"{i // 1000:04d}" / f"{i:07d}.wav"
        path.parent.mkdir(exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes(np.round(samples[voice][first:] * gain).astype("<i2").tobytes())
        clips.append(Clip(path.name, path, speaker=voices_[voice].speaker))
    write_manifest(folder / "manifest.csv", clips)
    with (folder / "draws.jsonl").open("w", encoding="utf-8") as lines:
        for clip, draws in zip(clips, rng.dirichlet(np.ones(len(LABELS)), (count, 8)), strict=True):
            name = clip.path.relative_to(folder).as_posix()
            for i, draw in enumerate(draws):
                probs = dict(zip(LABELS, draw.tolist(), strict=True))
                lines.write(json.dumps({"path": name, "teacher": "chance", "draw": i, "probs": probs}) + "\n")
    return folder / "manifest.csv"


def _pcm(path: Path) -> np.ndarray:
    with wave.open(str(path), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32)


def measure(manifest: Path, cache: AudioCache) -> dict[str, Stage]:
    """Every stage of `mifuse adapt`, one after the other, in this process."""
    config = AdaptConfig()
    stages: dict[str, Stage] = {}
    fit_config = replace(FitConfig(), steps=2 * STEPS, steps_per_epoch=STEPS)
    torch.manual_seed(0)
    student = Student().eval()

    def stage(name: str, action: Callable[[], T]) -> T:
        with _watched() as peak:
            began = time.process_time()
            result = action()
            seconds = time.process_time() - began
        stages[name] = Stage(seconds, peak[0])
        return result

    clips = stage("manifest", lambda: read_manifest(manifest)).clips
    stage("decoding", lambda: [len(cache.samples(clip)) for clip in clips][:0])
    stage("features", lambda: Features.of(clips, cache))
    stage("statistics", lambda: voice_statistics(clips, cache))
    features, measured = stage("resume", lambda: (Features.of(clips, cache), voice_statistics(clips, cache)))
    lalm = stage("LALM", lambda: load_draws(manifest.with_name("draws.jsonl"), clips))
    teaching = Teaching(clips, [lalm], student, measured, cache=cache, config=config)
    draws = stage("classifier", lambda: teaching.draws)
    targets = stage("labels", lambda: teaching.refined(draws).labels)
    fit = Trainer(student, features, fit_config)
    fit.run_epoch(targets)  # warms up
    stage("training", lambda: fit.run_epoch(targets))
    return stages


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Peak of the memory of this process within the block, MB above its beginning, looked at every 5 ms."""
    before, peak, over = _memory_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], _memory_mb() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
        peak[0] = max(peak[0], _memory_mb() - before)


def _memory_mb() -> float:
    """Memory of this process that no file stands for."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - read a thousand times
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1000


def show(counts: list[int], found: dict[int, dict[str, Stage]]) -> None:
    """A table; linear is what the first count leads to expect, and the same cost for a training step."""
    print(f"{'':12}" + "".join(f"{count:>10,} clips  MB    x linear" for count in counts))
    for name, about in STAGES.items():
        cells = ""
        for count in counts:
            here, first = found[count][name], found[counts[0]][name]
            linear = first.seconds * (1 if name == "training" else count / counts[0])
            cells += f"{here.seconds:>10.2f} s {here.peak_mb:>6.0f}  {here.seconds / linear:>9.2f}"
        print(f"{name:12}{cells}   {about}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", default="1000,10000", help="numbers of clips, the smallest first")
    parser.add_argument("--seconds", type=float, default=0.7, help="of a clip")
    parser.add_argument("--work", type=Path, help="folder for clips and cache; default: a temporary one")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # this process measures that many clips
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(1)
        folder = options.work / str(options.one)
        manifest = make_clips(folder, options.one, options.seconds)
        stages = measure(manifest, AudioCache(folder / "cache"))
        print(json.dumps({name: asdict(stage) for name, stage in stages.items()}))
        return
    counts = [int(text) for text in options.clips.split(",")]
    found: dict[int, dict[str, Stage]] = {}
    for count in counts:
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            arguments = ["--one", str(count), "--work", folder, "--seconds", str(options.seconds)]
            with popen("benchmarks.scale", arguments, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                output = process.stdout.read()
        if process.returncode:
            sys.exit(process.returncode)
        found[count] = {name: Stage(**stage) for name, stage in json.loads(output).items()}
    show(counts, found)
    if options.out:
        rows = {str(count): {k: asdict(v) for k, v in stages.items()} for count, stages in found.items()}
        document = {
            **provenance(),
            "machine": asdict(machine()),
            "seconds_of_a_clip": options.seconds,
            "clips": rows,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
