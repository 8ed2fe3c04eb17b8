"""Time of one prediction on one thread: students of each size, fp32 and int8, both engines, interleaved.

    python -m benchmarks.latency [--sizes xs s m] [--seconds 3] [--student FOLDER] [--openvino] [--json FILE]
    python -m benchmarks.latency --sizes s --classes 4 32     # what many emotions cost

Weights do not matter for time, so without --student they are random. Every model is called in turn, so that
a busy machine slows all of them alike; compare within one table only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.provenance import provenance
from mifuse.clips.labels import LABELS
from mifuse.exporting import bench
from mifuse.models.frontend import SAMPLE_RATE
from mifuse.models.student import SIZES, Student
from mifuse_export import ExportConfig, export_bundle, speed
from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines

ROUNDS, CALLS = 30, 10  # times each model is visited; timed calls of a visit


def speech_like(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """Noise that rises and falls four times a second: some frames are speech, some are not."""
    time_axis = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(seed).standard_normal(len(time_axis))
    return np.asarray(0.1 * noise * np.sin(4 * np.pi * time_axis) ** 2, np.float32)


def measure(
    students: dict[str, Student], seconds: float, formats: list[str], folder: Path
) -> list[dict[str, Any]]:
    """One row a model: size of the file and percentiles of the time."""
    clips = [speech_like(s, seed) for seed, s in enumerate((0.5, 1, 2, 3, 4))]
    rows: list[dict[str, Any]] = []
    calls = []
    for name, student in students.items():
        out = export_bundle(
            student,
            folder / name,
            ExportConfig(int8=True, formats=tuple(formats), max_drop=100),
            labels=student.labels,
            calibration=clips,
        )
        bundle = bundles.load(out)
        for precision, files in bundle.models.items():
            for engine, file in files.items():
                calls.append(engines.start(out, bundle, engine, precision, threads=1))
                weights = (out / file).with_suffix(".bin" if engine == "openvino" else ".onnx")
                row = {"student": name, "engine": engine, "precision": precision}
                rows.append({**row, "kb": round(weights.stat().st_size / 1000)})
    samples = speech_like(seconds)[None]
    times = speed.times(calls, samples, ROUNDS, CALLS)
    for found, spent in zip(rows, times, strict=True):
        found |= {f"p{p}_ms": round(float(np.percentile(spent, p)) * 1e3, 3) for p in (50, 90, 99)}
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--classes", nargs="+", type=int, default=[4], help="emotions of each student (4)")
    parser.add_argument("--student", type=Path, help="a trained student instead of random ones")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--openvino", action="store_true", help="OpenVINO as well")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    students = {
        size if classes == 4 else f"{size}, {classes} emotions": Student(names(classes), size, prosody=True)
        for size in options.sizes
        for classes in options.classes
    }
    if options.student:
        students = {options.student.name: Student.from_pretrained(options.student)}
    with tempfile.TemporaryDirectory() as folder:
        formats = ["onnx", "openvino"] if options.openvino else ["onnx"]
        rows = measure(students, options.seconds, formats, Path(folder))
    print(f"{options.seconds:g} s of audio, one thread, {ROUNDS * CALLS} calls each, {machine()}")
    print("| student | engine | precision | kB | p50 ms | p90 ms | p99 ms |")
    print("| --- | --- | --- | --: | --: | --: | --: |")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    for line in ratios(rows, options.sizes, options.classes):
        print(line)
    if options.json:
        options.json.write_text(
            json.dumps(
                {**provenance(), "machine": machine(), "seconds": options.seconds, "rows": rows}, indent=1
            )
        )


def names(classes: int) -> tuple[str, ...]:
    """Labels, as many as wanted: the default four, or made up."""
    return LABELS if classes == len(LABELS) else tuple(f"emotion {i:02}" for i in range(classes))


def ratios(rows: list[dict[str, Any]], sizes: list[str], classes: list[int]) -> list[str]:
    """How much longer students of more emotions take than those of the first number; a line a model."""
    per = len(rows) // max(1, len(sizes) * len(classes))  # models of a student
    lines = []
    for number in range(len(sizes)) if len(classes) > 1 else ():
        mine = rows[number * per * len(classes) :][: per * len(classes)]
        for at, row in enumerate(mine[per:]):
            first, more = mine[at % per], classes[1 + at // per]
            ratio = row["p50_ms"] / first["p50_ms"]
            what = f"{sizes[number]}, {row['precision']} on {row['engine']}"
            lines.append(f"{what}: {more} emotions take {ratio:.2f} times as long as {classes[0]}")
    return lines


def machine() -> str:
    """This machine and torch, in a line."""
    found = bench.machine()
    return f"{found.cpu}, {found.system}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
