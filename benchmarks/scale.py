"""Cost of adaptation against the number of clips: seconds and memory of each stage, and the ratio to linear.

    python -m benchmarks.scale [--clips 1000,10000] [--out FILE.json]
    python -m benchmarks.scale --made [--clips 1000,10000,100000] [--simulate 1000000] [--out FILE.json]

Synthetic clips, or with --made clips that are only numbers (`benchmarks.scale_made`); each number of clips is
measured in a process of its own, on one thread, with an empty cache. --simulate says what so many clips would
take, by the line through the last two numbers of clips.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks import scale_made
from benchmarks.provenance import provenance
from benchmarks.workers import popen
from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip, read_manifest, write_manifest
from mifuse.demo.synth import make_domain
from mifuse.exporting.bench import machine
from mifuse.files import whole_file
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
    disk_mb: float = 0.0  # of what it wrote


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
        return watched(stages, manifest.parent, name, action)

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


def watched(stages: dict[str, Stage], folder: Path, name: str, action: Callable[[], T]) -> T:
    """What the action gives; what it cost is added to `stages`."""
    before = _disk_mb(folder)
    with _watched() as peak:
        began = time.process_time()
        result = action()
        seconds = time.process_time() - began
    stages[name] = Stage(seconds, peak[0], _disk_mb(folder) - before)
    return result


def _disk_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


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


def markdown(document: Mapping[str, Any]) -> str:
    """A table; linear is what the first count leads to expect, and the same cost for a training step."""
    found = {
        int(count): {name: Stage(**stage) for name, stage in stages.items()}
        for count, stages in document["clips"].items()
    }
    counts = sorted(found)
    many, simulated = document.get("simulate"), {}
    if many and len(counts) > 1:
        simulated = {name: _simulated(name, found, many) for name in found[counts[0]]}
    heads = [f"{count:,} clips: CPU s / MB / on disk | x linear" for count in counts]
    heads += [f"{many:,}, simulated: CPU s / MB / on disk"] if simulated else []
    lines = [f"| stage | {' | '.join(heads)} |", "| --- |" + " ---: |" * (2 * len(counts) + bool(simulated))]
    for name in found[counts[0]]:
        first = found[counts[0]][name]
        cells = []
        for count in counts:
            linear = first.seconds * (1 if name == "training" else count / counts[0])
            cells += [_cell(found[count][name]), f"{found[count][name].seconds / linear:.2f}"]
        cells += [_cell(simulated[name])] if simulated else []
        lines.append(f"| {name}: {(STAGES | scale_made.STAGES)[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(stage: Stage) -> str:
    return f"{stage.seconds:.2f} / {stage.peak_mb:,.0f} / {abs(stage.disk_mb):,.0f}"


def _simulated(name: str, found: Mapping[int, Mapping[str, Stage]], many: int) -> Stage:
    """By the line through the last two counts; training steps do not depend on the count."""
    below, above = sorted(found)[-2:]
    a, b = found[below][name], found[above][name]
    if name == "training":
        return b
    share = (many - below) / (above - below)
    values = zip(astuple(a), astuple(b), strict=True)
    return Stage(*(max(0.0, low + share * (high - low)) for low, high in values))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", default="1000,10000", help="numbers of clips, the smallest first")
    parser.add_argument("--seconds", type=float, default=0.7, help="of a clip")
    parser.add_argument("--made", action="store_true", help="clips that are only numbers")
    parser.add_argument("--simulate", type=int, metavar="N", help="what N clips would take")
    parser.add_argument("--work", type=Path, help="folder for clips and cache; default: a temporary one")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # this process measures that many clips
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(1)
        folder = options.work / str(options.one)
        stages: dict[str, Stage] = {}
        if options.made:
            folder.mkdir()
            stage = partial(watched, stages, folder)
            scale_made.measure(folder, options.one, options.seconds, stage)
        else:
            manifest = make_clips(folder, options.one, options.seconds)
            stages = measure(manifest, AudioCache(folder / "cache"))
        print(json.dumps({name: asdict(stage) for name, stage in stages.items()}))
        return
    found: dict[str, Any] = {}
    for count in options.clips.split(","):
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            arguments = ["--one", count, "--work", folder, "--seconds", str(options.seconds)]
            arguments += ["--made"] if options.made else []
            with popen("benchmarks.scale", arguments, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                output = process.stdout.read()
        if process.returncode:
            sys.exit(process.returncode)
        found[count] = json.loads(output)
    document = {
        **provenance(),
        "machine": asdict(machine()),
        "seconds_of_a_clip": options.seconds,
        "simulate": options.simulate,
        "clips": found,
    }
    print(markdown(document))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(options.out) as part:
            part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
