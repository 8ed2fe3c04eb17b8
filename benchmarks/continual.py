"""A student adapted once more: its UA on the new domain, and what is left on the old one.

    python -m benchmarks.continual --corpora DIR [--chains SOURCE>OLD>NEW,…] [--out FILE.json]

A chain is a classifier of the source, its student on the old domain (taken from the work of
`benchmarks.transfers` where that is done), and that student adapted to the new domain without old clips.
One row for each weight of the earlier student's answers, `keep`; 0 is plain adaptation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import units
from benchmarks.provenance import provenance
from benchmarks.units import SPLITS, Transfer, Unit, named
from mifuse.adaptation import adapt
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.config import override
from mifuse.exporting.bench import machine
from mifuse.fusion.recipes import KEEP, RECIPES
from mifuse.models.classifier import TrainConfig, load_student
from mifuse.models.features import Features
from mifuse.models.student import Student
from mifuse.models.training import predict
from mifuse.runs.folder import versions
from mifuse.runs.metrics import unweighted_accuracy
from mifuse.teachers.draws import load_draws


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every chain and print its table."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    chains = {}
    for text in options.chains.split(","):
        began = time.perf_counter()
        chains[text] = measure(options, text)
        print(markdown(text, chains[text]), flush=True)
        print(f"\n{time.perf_counter() - began:.0f} s\n", flush=True)
    if options.out:
        document = {
            **provenance(),
            "machine": asdict(machine()),
            "versions": versions(),
            "recipe": asdict(override(RECIPES["default"], options.set)),
            "keep": KEEP,
            "seed": options.seed,
            "chains": chains,
        }
        partial = options.out.with_name(f".{options.out.name}.tmp")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        partial.replace(options.out)
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    it = argparse.ArgumentParser(
        prog="python -m benchmarks.continual",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument("--corpora", type=Path, required=True, help="folder of corpora")
    it.add_argument("--chains", default="koremo>nemo>ravdess,ravdess>nemo>koremo", help="SOURCE>OLD>NEW, …")
    it.add_argument("--seed", type=int, default=0)
    it.add_argument("--keep", type=float, nargs="+", default=[0, KEEP / 2, KEEP, 2 * KEEP])
    it.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the recipe")
    it.add_argument("--work", type=Path, default=Path.home() / ".cache" / "mifuse" / "transfers")
    it.add_argument("--out", type=Path, help="JSON")
    return it


def measure(options: argparse.Namespace, chain: str) -> dict[str, dict[str, float]]:
    """UA before and after, for each `keep`, on both splits of both domains, by `domain split`."""
    source, old, new = chain.split(">")
    cache = AudioCache()
    earlier = earlier_student(options, Transfer((source,), old))
    clips = clips_of(options.corpora, new, "adapt")
    draws = load_draws(options.corpora / new / "lalm_draws.jsonl", clips, LABELS, cache)
    config = replace(override(RECIPES["default"], options.set), size=earlier.size)
    students = {"before": earlier} | {
        f"{keep:g}": adapt(
            clips, draws, earlier, cache, config=replace(config, keep=keep), seed=options.seed
        ).student
        for keep in options.keep
    }
    return {
        name: {
            f"{domain} {split}": ua(student, clips_of(options.corpora, domain, part), cache, split != "test")
            for domain in (old, new)
            for split, part in SPLITS.items()
        }
        for name, student in students.items()
    }


def earlier_student(options: argparse.Namespace, transfer: Transfer) -> Student:
    """The student of the old domain, adapted now unless the table has it."""
    method = named("default", [])
    unit = Unit(options.corpora, options.work, transfer, options.seed, TrainConfig(), method)
    for needed, done in ((replace(unit, method=None), unit.classifier), (unit, unit.student)):
        if not done.exists():
            units.run(needed)
    return load_student(unit.student)


def clips_of(corpora: Path, name: str, split: str) -> tuple[Clip, ...]:
    """The clips of one split."""
    return read_manifest(corpora / name / "target.csv").select(split).clips


def ua(student: Student, clips: Sequence[Clip], cache: AudioCache, known: bool) -> float:
    """UA in %, each clip within its speaker's or by itself."""
    truth = np.array([LABELS.index(str(clip.label)) for clip in clips])
    features = Features.of(clips, cache)
    probs = predict(student, features if known else features.anonymous())
    return unweighted_accuracy(truth, probs.argmax(1), len(LABELS))


def markdown(chain: str, rows: dict[str, dict[str, float]]) -> str:
    """The table of a chain."""
    columns = list(next(iter(rows.values())))
    lines = [f"UA in %, {chain}", "", f"| keep | {' | '.join(columns)} | mean |"]
    lines.append("| ---: |" + " ---: |" * (len(columns) + 1))
    for name, row in rows.items():
        values = [*row.values(), float(np.mean(list(row.values())))]
        lines.append(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
