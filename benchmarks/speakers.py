"""What it is worth to know a speaker, by how many clips of what emotions; students of `benchmarks.transfers`.

    python -m benchmarks.speakers --corpora DIR [--transfers A>B,…] [--seeds 1] [--newest] [--out FILE]

Each test clip, of a speaker who is not in the archive that the student was adapted to, is held against clips
of the same speaker. Labels choose these, to make mixes that people may show; the student sees none.
The clip itself may be among them, as it is on the device.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.export import student_options, students
from benchmarks.provenance import provenance
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest
from mifuse.errors import MifuseError
from mifuse.models.classifier import load_student
from mifuse.models.features import Features
from mifuse.models.speaker_norm import groups
from mifuse.models.student import Student
from mifuse.models.training import embeddings
from mifuse.runs.metrics import unweighted_accuracy

COUNTS = (4, 8, 12, 16, 24, 48)
MIXED = 24  # clips of the mixes below
DRAWS = 10  # of the clips that a speaker is known by
ALONE = "unknown"
PLAIN = ", clips count alike"  # instead of emotions


def mixes() -> dict[str, list[float]]:
    """Shares of the emotions that a speaker shows."""
    shares = {}
    for label, much in (("neutral", 0.7), ("neutral", 0.85), ("angry", 0.7)):
        rest = (1 - much) / (len(LABELS) - 1)
        shares[f"{MIXED} clips, {100 * much:.0f} % {label}"] = [
            much if this == label else rest for this in LABELS
        ]
    return shares


def measure(student: Student, features: Features, truth: NDArray[np.int64]) -> dict[str, list[float]]:
    """UA and accuracy in %, by what is known of the speaker."""
    values = embeddings(student, features)
    unknown = student.norm(values)
    shares = student.head(unknown).softmax(-1)

    def scored(z: torch.Tensor) -> list[float]:
        found = student.head(z).argmax(1).numpy()
        return [unweighted_accuracy(truth, found, len(LABELS)), 100 * float((found == truth).mean())]

    def known(way: str, draw: int) -> list[float]:
        rng, z = np.random.default_rng(draw), unknown.clone()
        for rows in groups(features.speakers):
            others = _chosen(rows, truth, way.removesuffix(PLAIN), rng)
            weights = torch.ones(len(others)) if way.endswith(PLAIN) else alike(shares[others])
            z[rows] = against(values[rows], values[others], weights, student.norm.eps)
        return scored(z)

    ways = [f"{count} clips" for count in COUNTS] + [*mixes(), f"{MIXED} clips, any mix"]
    ways += [f"{way}{PLAIN}" for way in ways[-5:]]
    found = {way: np.mean([known(way, draw) for draw in range(DRAWS)], axis=0).tolist() for way in ways}
    return {ALONE: scored(unknown)} | found


def alike(shares: torch.Tensor) -> torch.Tensor:
    """Weights (m,) by which the emotions of probabilities (m, C) count alike, as on the device."""
    return (shares / (shares.sum(0) + 1)).sum(1)


def against(values: torch.Tensor, others: torch.Tensor, weights: torch.Tensor, eps: float) -> torch.Tensor:
    """z-scores of the embeddings (n, D) within others (m, D) of the same speaker."""
    weights = (weights / weights.sum())[:, None]
    mean = (weights * others).sum(0)
    return (values - mean) / torch.sqrt((weights * (others - mean) ** 2).sum(0) + eps)


def _chosen(
    rows: NDArray[np.int64], truth: NDArray[np.int64], way: str, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The clips of one speaker by which he is known."""
    count = int(way.split(maxsplit=1)[0])
    shares = mixes().get(way)
    if way.endswith("any mix"):
        shares = rng.dirichlet(np.ones(len(LABELS))).tolist()
    if shares is None:
        return rng.permutation(rows)[:count]
    there = np.array([share * (truth[rows] == c).any() for c, share in enumerate(shares)])
    classes = rng.choice(len(LABELS), size=count, p=there / there.sum())
    return np.array([rng.choice(rows[truth[rows] == c]) for c in classes])


def markdown(rows: Mapping[str, Mapping[str, list[float]]]) -> str:
    """UA and accuracy, ways down, students across, their mean last."""
    lines = ["| known by | " + " | ".join(rows) + " | mean |", "| --- |" + " ---: |" * (len(rows) + 1)]
    for way in next(iter(rows.values())):
        cells = [row[way] for row in rows.values()]
        cells.append(np.mean(cells, axis=0).tolist())
        lines.append(f"| {way} | " + " | ".join(f"{ua:.1f} ({acc:.1f})" for ua, acc in cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Print the table and write the JSON."""
    options = student_options("python -m benchmarks.speakers", __doc__).parse_args()
    torch.set_num_threads(1)
    cache, rows = AudioCache(), {}
    try:
        for name, (folder, target) in students(options).items():
            clips = read_manifest(target).select("test").clips
            truth = np.array([LABELS.index(str(clip.label)) for clip in clips])
            with torch.inference_mode():
                rows[name] = measure(load_student(folder).eval(), Features.of(clips, cache), truth)
            print(name, file=sys.stderr, flush=True)
    except MifuseError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"UA (accuracy) on new speakers, %, by the clips of theirs that are known; mean of {DRAWS} draws\n")
    print(markdown(rows))
    if options.out:
        options.out.write_text(
            json.dumps({**provenance(), "students": rows}, indent=1) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
