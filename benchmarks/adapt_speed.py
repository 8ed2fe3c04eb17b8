"""Speed of adaptation: clips a second in training passes, and the share of the time that the loader takes.

    python -m benchmarks.adapt_speed --corpora DIR [--target nemo] [--size s] [--threads 2]

The goal, for size `s` on two cores: at least 250 clips/s, loader under 10 %. The labels that are fitted are
uniform, since speed does not depend on them; the first epoch warms up and is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest
from mifuse.models.features import Features
from mifuse.models.student import SIZES, Student
from mifuse.models.training import FitConfig, Trainer


def measure(features: Features, size: str, epochs: int) -> dict[str, float | str]:
    """Medians over the epochs after the first."""
    config = FitConfig()
    config = replace(config, steps=(epochs + 1) * config.steps_per_epoch)
    fit = Trainer(Student(size=size), features, config)
    targets = np.full((len(features), len(LABELS)), 1 / len(LABELS))
    records = [fit.run_epoch(targets) for _ in range(epochs + 1)][1:]
    return {
        "precision": str(fit.accelerator.mixed_precision),
        "clips_per_second": statistics.median(record["clips_per_second"] for record in records),
        "loader_share": statistics.median(record["loader_share"] for record in records),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--target", default="nemo")
    parser.add_argument("--size", default="s", choices=SIZES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clips = read_manifest(options.corpora / options.target / "target.csv").select("adapt").clips
    found = measure(Features.of(clips, AudioCache()), options.size, options.epochs)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{options.target}, student {options.size}, {options.threads} threads, precision {found['precision']}"
    )
    speed, share = float(found["clips_per_second"]), float(found["loader_share"])
    print(f"{speed:.0f} clips/s (goal 250), loader {share:.1%} (goal 10 %)")


if __name__ == "__main__":
    main()
