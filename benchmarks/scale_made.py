"""What `benchmarks.scale --made` measures: adaptation of clips that are only numbers, drawn at random.

No audio: statistics, features and the draws of LALM and classifier are made of each clip's true emotion and
noise, as large as those of real clips of that length. So 100,000 clips fit into minutes. Decoding, features
and statistics of recordings are what `benchmarks.scale` itself measures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip, read_manifest, write_manifest
from mifuse.clips.shards import SHARD, Joined
from mifuse.demo.synth import make_domain
from mifuse.fusion.recipes import AdaptConfig
from mifuse.fusion.teaching import Teaching
from mifuse.models.features import Features
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer
from mifuse.teachers.base import Answer, Source
from mifuse.teachers.draws import load_draws
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.rows import StoredDraw
from mifuse.voices.statistics import features_and_statistics

Array = NDArray[np.float64]
Measure = Callable[[str, Callable[[], Any]], Any]
DRAWS, SPEAKERS, STEPS = 8, 50, 20
BATCH = 100  # clips whose draws come at once, as from the batches of a service
STAGES = {
    "manifest": "write, read and check it",
    "statistics": "made, written, mapped",
    "features": "made, written, mapped",
    "store": f"{DRAWS} draws of the LALM a clip, safe on the disk",
    "LALM": "the same read from the store",
    "labels": "reference, fusion and refinement",
    "training": f"{STEPS} steps of 48 clips",
}


class Named(AudioCache):
    """Content hashes of clips that have no content."""

    def hash(self, clip: Clip) -> str:
        return hashlib.sha256(f"{clip.name} {clip.start}".encode()).hexdigest()


class Shape:
    """Sizes of a real clip of some length."""

    def __init__(self, folder: Path, seconds: float) -> None:
        source = make_domain(folder, "phone", speakers=1, clips_per_speaker=4, seconds=seconds)
        clips = read_manifest(source).clips
        features, statistics = features_and_statistics(clips, AudioCache(folder / "cache"))
        self.file = clips[0].path
        self.numbers = statistics.in_memory().shape[1]
        self.frames = int(features.lengths.mean())
        self.bins = features.batch([0]).shape[-1]


def measure(folder: Path, count: int, seconds: float, stage: Measure, labels: Sequence[str] = LABELS) -> None:
    """Every stage; nothing is kept but what `folder` holds."""
    rng, shape = np.random.default_rng(0), Shape(folder / "shape", seconds)
    truth = rng.integers(0, len(labels), count)
    # Pieces of one file, as the turns of a call are.
    turns = [
        Clip("call.wav", shape.file, start=float(n), end=n + seconds, speaker=f"s{n % SPEAKERS}")
        for n in range(count)
    ]

    def manifest() -> Sequence[Clip]:
        write_manifest(folder / "manifest.csv", turns)
        return read_manifest(folder / "manifest.csv").clips

    clips = stage("manifest", manifest)
    moods = rng.normal(0, 1, (len(labels), shape.numbers))

    def measured() -> Joined:
        files = []
        for first, part in _parts(truth):
            values = moods[part] + rng.normal(0, 3, (len(part), shape.numbers))
            files.append(_written(folder / f"statistics-{first}.npy", values))
        return Joined(files)

    statistics = stage("statistics", measured)
    frames = (shape.frames, shape.bins)

    def features() -> Features:
        files = []
        for first, part in _parts(truth):
            noise = rng.normal(-5, 2, (len(part) * frames[0], frames[1])).astype(np.float16)
            files.append(_written(folder / f"features-{first}.npy", noise))
        speakers = np.arange(count) % SPEAKERS
        return Features(Joined(files), np.arange(count + 1) * frames[0], speakers)

    logmels = stage("features", features)
    source, cache = Source("made", "model", "prompt"), Named(folder / "cache")

    def store() -> None:
        with DrawsStore(folder / "draws.db") as draws:
            for first in range(0, count, BATCH):
                rows = []
                for n, each in enumerate(_draws(rng, truth[first : first + BATCH]).tolist(), first):
                    answers = [Answer(dict(zip(labels, row, strict=True))) for row in each]
                    clip = cache.hash(clips[n])
                    rows += [StoredDraw(source, clip, k, answer) for k, answer in enumerate(answers)]
                draws.add(rows)

    stage("store", store)
    lalm = stage("LALM", lambda: load_draws(folder / "draws.db", clips, cache=cache))
    torch.manual_seed(0)
    student = Student().eval()
    teaching = Teaching(clips, [lalm], student, statistics, cache=cache, config=AdaptConfig())
    teaching.alone = teaching.draws = _draws(rng, truth).transpose(1, 0, 2)
    targets = stage("labels", lambda: teaching.refined(teaching.draws).labels)
    fit = Trainer(student, logmels, replace(FitConfig(), steps=2 * STEPS, steps_per_epoch=STEPS))
    fit.run_epoch(targets)  # warms up
    stage("training", lambda: fit.run_epoch(targets))


def _parts(truth: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Pieces as they lie on the disk."""
    for first in range(0, len(truth), SHARD):
        yield first, truth[first : first + SHARD]


def _written(file: Path, values: NDArray[Any]) -> NDArray[Any]:
    np.save(file, values)
    return np.asarray(np.load(file, mmap_mode="r"))


def _draws(rng: np.random.Generator, truth: NDArray[np.int64]) -> Array:
    """Of clips that are right more often than not, (N, K, C)."""
    logits = rng.normal(0, 1, (len(truth), 1, len(LABELS)))
    logits = logits + rng.normal(0, 0.5, (len(truth), DRAWS, len(LABELS)))
    logits[np.arange(len(truth)), :, truth] += 1
    probs = np.exp(logits)
    return np.asarray(probs / probs.sum(axis=2, keepdims=True))
