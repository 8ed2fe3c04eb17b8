"""What a narrower student costs: size, time and UA of students cut out of those of `benchmarks.transfers`.

    python -m benchmarks.compression --corpora DIR [--transfers A>B,…] [--widths 4,2,3,6] [--newest]
        [--starts pruned,random,adapted] [--out FILE] [--picture FILE]

As `mifuse export --budget-…` does, each student is narrowed to every width, teaches what is left, and the
result is exported and judged on every labelled clip of its target, run by the runtime. Beside it, at the same
width: `random`, the same lessons from random weights, and `adapted`, a student adapted from draws anew. What
is measured is kept in --work, and a run that was cut short goes on. Times are of all widths in turns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import charts
from benchmarks.export import students
from benchmarks.latency import machine, speech_like
from benchmarks.provenance import provenance
from mifuse.adaptation import adapt
from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.errors import MifuseError
from mifuse.exporting.compress import DISTIL, distilled, narrowed
from mifuse.exporting.student import export_student
from mifuse.fusion.recipes import RECIPES
from mifuse.models.classifier import load_model, load_student
from mifuse.models.features import Features
from mifuse.models.student import Student, size_of, width_of
from mifuse.runs.metrics import unweighted_accuracy
from mifuse.teachers.draws import load_draws
from mifuse_export import ExportConfig, speed
from mifuse_export.parity import Floats, Predict, probabilities
from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines

SPLITS = ("adapt", "test")
STARTS = {"pruned": "its strongest channels", "random": "random weights", "adapted": "adapted anew"}
SECONDS = 3.0
ROUNDS, CALLS = 40, 5  # times each model is visited; timed calls of a visit


@dataclass(frozen=True)
class Transfer:
    """A student, the folder of its target, and where what is made of it is kept."""

    name: str
    student: Path
    target: Path
    work: Path

    def made(self, width: int, start: str, cache: AudioCache) -> Student:
        """The student of that width."""
        student = load_student(self.student)
        clips = read_manifest(self.target / "target.csv").select("adapt").clips
        torch.manual_seed(0)
        if start == "adapted":
            source = self.name.partition(">")[0]
            known = self.student.parent.parent.glob(f"{source}/classifier-0-*")
            classifier = load_model(max(known, key=lambda folder: folder.stat().st_mtime))
            draws = load_draws(self.target / "lalm_draws.jsonl", clips, student.labels, cache)
            config = replace(RECIPES["default"], size=size_of(width))
            return adapt(clips, draws, classifier, cache, config=config).student
        first = narrowed(student, width)
        if start == "random":
            first = Student(student.labels, size_of(width), student.dropout.p)
        return distilled(student, first, Features.of(clips, cache))

    def point(self, width: int, start: str, cache: AudioCache) -> dict[str, Any]:
        """Size and UA of one student, its bundle kept; from the disk when it was measured before."""
        folder = self.work / f"{width}-{start}"
        file = folder / "point.json"
        if file.is_file():
            return dict(json.loads(file.read_text(encoding="utf-8")))
        checkpoint, seconds = self.student, 0.0
        if start != "student":
            began, checkpoint = time.process_time(), folder / "student"
            made = self.made(width, start, cache)
            seconds = time.process_time() - began
            made.save_pretrained(checkpoint)
        out = folder / "bundle"
        # The table shows what int8 costs, so nothing is refused here.
        config = ExportConfig(int8=True, max_drop=100.0, force_int8=True)
        target = self.target / "target.csv"
        export_student(checkpoint, out, config, calibration=target, cache=cache, force=True)
        found = {"transfer": self.name, "size": size_of(width), "start": start, "fit_cpu_s": seconds}
        found |= self.judged(out, cache)
        partial = file.with_suffix(".tmp")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(file)
        return found

    def judged(self, folder: Path, cache: AudioCache) -> dict[str, Any]:
        """Size of the models of a bundle, and UA by precision and split."""
        bundle, manifest = bundles.load(folder), read_manifest(self.target / "target.csv")
        found: dict[str, Any] = {}
        for precision in ("fp32", "int8"):
            predict = engines.start(folder, bundle, "onnxruntime", precision, 1)
            found[f"{precision}_kb"] = (folder / bundle.model("onnxruntime", precision)).stat().st_size / 1000
            for split in SPLITS:
                clips = manifest.select(split).clips
                samples: list[Floats] = [cache.samples(clip, trim=True) for clip in clips]
                classes = np.array([bundle.labels.index(str(clip.label)) for clip in clips])
                chosen = probabilities(predict, samples).argmax(axis=1)
                ua = unweighted_accuracy(classes, chosen, len(bundle.labels))
                found.setdefault(precision, {})[split] = ua
        return found


def timed(transfer: Transfer, points: Sequence[dict[str, Any]]) -> None:
    """Add the times of every point of a transfer, in ms: all models in turns."""
    calls: list[Predict] = []
    for point in points:
        folder = transfer.work / f"{width_of(point['size'])}-{point['start']}" / "bundle"
        bundle = bundles.load(folder)
        calls += [engines.start(folder, bundle, "onnxruntime", p, 1) for p in ("fp32", "int8")]
    spent = 1e3 * speed.times(calls, speech_like(SECONDS)[None], ROUNDS, CALLS).reshape(len(calls), -1)
    for point, row in zip(points, spent.reshape(len(points), 2, -1), strict=True):
        for precision, values in zip(("fp32", "int8"), row, strict=True):
            for percentile in (10, 50):
                point[f"{precision}_p{percentile}_ms"] = float(np.percentile(values, percentile))


def means(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points that every transfer has, averaged over the transfers, widest first."""
    transfers = {p["transfer"] for p in points}
    keys = sorted({(width_of(p["size"]), p["start"]) for p in points}, key=lambda k: (-k[0], order(k[1])))
    found = []
    for width, start in keys:
        rows = [p for p in points if (width_of(p["size"]), p["start"]) == (width, start)]
        if len(rows) < len(transfers):
            continue
        mean: dict[str, Any] = {"size": size_of(width), "start": start, "transfers": len(rows)}
        for name in ("fp32_kb", "int8_kb", "fp32_p50_ms", "int8_p50_ms", "fit_cpu_s"):
            mean[name] = float(np.mean([row[name] for row in rows]))
        for precision in ("fp32", "int8"):
            mean[precision] = {s: float(np.mean([row[precision][s] for row in rows])) for s in SPLITS}
        found.append(mean)
    return found


def order(start: str) -> int:
    """Place of a start in the table."""
    return ["student", *STARTS].index(start)


def table(points: Sequence[Mapping[str, Any]]) -> str:
    """The points as Markdown: of one transfer, or means."""
    lines = [
        "| size | made from | int8 kB | fp32 kB | p50 int8 ms | p50 fp32 ms | UA adapt, int8 (fp32) | "
        "UA test, int8 (fp32) |",
        "| --- | --- " + "| ---: " * 6 + "|",
    ]
    for p in points:
        ua = " | ".join(f"{p['int8'][split]:.1f} ({p['fp32'][split]:.1f})" for split in SPLITS)
        lines.append(
            f"| {p['size']} | {STARTS.get(p['start'], 'the student itself')} | {p['int8_kb']:.0f} | "
            f"{p['fp32_kb']:.0f} | {p['int8_p50_ms']:.2f} | {p['fp32_p50_ms']:.2f} | {ua} |"
        )
    return "\n".join(lines)


def transfers(options: argparse.Namespace) -> list[Transfer]:
    """What there is to compress; results are kept by the student's weights and `DISTIL`."""
    found = []
    for name, (student, target) in students(options).items():
        digest = hashlib.sha256((student / "model.safetensors").read_bytes())
        digest.update(json.dumps(asdict(DISTIL), sort_keys=True).encode())
        pair = name.partition(" ")[0]
        work = options.points / f"{pair.replace('>', '-')}-{digest.hexdigest()[:12]}"
        found.append(Transfer(pair, student, target.parent, work))
    return found


def main() -> int:
    """Print the tables, write JSON and picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compression",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cache_folder = Path.home() / ".cache" / "mifuse"
    parser.add_argument("--corpora", type=Path, required=True, help="folder of corpora")
    parser.add_argument("--transfers", default="nemo>ravdess,koremo>ravdess,ravdess>nemo")
    parser.add_argument(
        "--widths", default="4,2,3,6", help="comma-separated; wider ones than the student's are left out"
    )
    parser.add_argument("--starts", default="pruned", help=f"comma-separated, of {', '.join(STARTS)}")
    parser.add_argument("--newest", action="store_true", help="the last student, whatever its settings")
    parser.add_argument(
        "--work", type=Path, default=cache_folder / "transfers", help="of benchmarks.transfers"
    )
    parser.add_argument("--points", type=Path, default=cache_folder / "compression", help="what is measured")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--picture", type=Path, help="SVG")
    options = parser.parse_args()
    options.seeds = 1
    torch.set_num_threads(1)
    cache, points = AudioCache(), []
    try:
        todo = transfers(options)
    except MifuseError as error:
        print(error, file=sys.stderr)
        return 1
    asked = [("", "student"), *((w, s) for w in options.widths.split(",") for s in options.starts.split(","))]
    found: dict[Transfer, list[dict[str, Any]]] = {transfer: [] for transfer in todo}
    for text, start in asked:
        for transfer, rows in found.items():
            own = width_of(load_student(transfer.student).size)
            width = int(text or own)
            if start == "student" or width < own:
                rows.append(transfer.point(width, start, cache))
                print(f"{transfer.name} {size_of(width)} {start}", file=sys.stderr, flush=True)
    for transfer, rows in found.items():
        timed(transfer, rows)
        points += rows
        print(f"\n{transfer.name}\n\n{table(rows)}", flush=True)
    mean = means(points)
    print(f"\nmean, {SECONDS:g} s of audio, one thread, {machine()}\n\n{table(mean)}")
    if options.out:
        document = {
            **provenance(),
            "machine": machine(),
            "seconds": SECONDS,
            "distil": asdict(DISTIL),
            "mean": mean,
            "points": points,
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.picture:
        options.picture.write_text(charts.compression(mean), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
