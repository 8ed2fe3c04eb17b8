"""What int8 costs and gains: the students of `benchmarks.transfers`, exported and run on both engines.

    python -m benchmarks.export --corpora DIR [--transfers A>B,…] [--seeds 1] [--newest] [--out FILE]

Each student is exported as a user would, with the gate at half a point, and judged on every labelled clip
of its target, run by the runtime. The part after the front end is the whole less the front end alone, all
three timed in turns, in a process that has done nothing else, as on a device; with them a front end that
gives the same by a dense DFT. Known speakers: new ones whom the runtime gets to know, without a label, by
their clips in a random order. --newest takes the last student of a transfer whatever its settings were;
without it `benchmarks.transfers` has to have run with the code as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from benchmarks import workers
from benchmarks.latency import machine, speech_like
from benchmarks.provenance import provenance
from benchmarks.transfers import find_corpora
from benchmarks.units import Transfer, Unit, named
from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.errors import MifuseError
from mifuse.evaluation import Device, labelled_clips, predict, predict_known
from mifuse.exporting.calibration import calibration_clips
from mifuse.exporting.student import export_student
from mifuse.models.classifier import TrainConfig
from mifuse.models.frontend import HOP, WINDOW, LogMel, mel_filters
from mifuse.models.student import Student
from mifuse.runs.metrics import unweighted_accuracy
from mifuse_export import ExportConfig, ExportError, speed
from mifuse_export.calibration import calibrate
from mifuse_export.onnx import INPUT, frozen, write_onnx
from mifuse_export.openvino import write_openvino
from mifuse_export.parity import Floats, Predict, compare, probabilities
from mifuse_export.quantize import FRONT_END
from mifuse_runtime import Recognizer, engines
from mifuse_runtime import bundle as bundles
from mifuse_runtime.bundle import Bundle

SECONDS = 3.0
ENGINES = ("onnxruntime", "openvino")
# What the table is held against: name, unit, and the goal, negative where more is better.
GOALS = {
    "UA drop, mean": ("points", 0.3),
    "UA drop, worst": ("points", 1.0),
    "agreement, worst": ("%", -97.0),
    "speed onnxruntime, worst": ("x", -1.3),
    "speed openvino, worst": ("x", -1.3),
    "after the front end onnxruntime, worst": ("x", -1.6),
    "after the front end openvino, worst": ("x", -1.6),
    "front end of a dense DFT's, onnxruntime, worst": ("%", 50.0),
    "front end of a dense DFT's, openvino, worst": ("%", 50.0),
    "int8 file, largest": ("kB", 150.0),
    "int8 file of xs": ("kB", 60.0),
    "export, longest": ("s", 90.0),
    "p50, int8 on onnxruntime, worst": ("ms", 0.6),
}


class DenseLogMel(LogMel):
    """The front end with the DFT as one convolution: windowed cosines and sines of every second bin."""

    def __init__(self) -> None:
        super().__init__()
        self.bins = None  # its spectrum is not the one that the gate of speech is added to
        angles = 2 * torch.pi / HOP * torch.outer(torch.arange(HOP // 2 + 1), torch.arange(WINDOW)).double()
        waves = torch.cat([angles.cos(), angles.sin()]) * self.window[:, 0]
        self.waves = nn.Buffer(waves.float()[:, None])
        self.mels = nn.Buffer(mel_filters().float())

    def power(self, samples: Tensor, low: bool = False) -> Tensor:
        padded = nn.functional.pad(samples[:, None], (HOP, -samples.shape[1] % HOP + HOP))
        real, imaginary = nn.functional.conv1d(padded, self.waves, stride=HOP).chunk(2, dim=1)
        return (real * real + imaginary * imaginary).transpose(1, 2) @ self.mels


def dense_front_end(folder: Path) -> Bundle:
    """Write the front end with a dense DFT in the new `folder`; the student behind it does not matter."""
    folder.mkdir()
    student = Student(size="xs").eval()
    student.frontend = DenseLogMel()
    write_onnx(frozen(student), folder / "student.onnx", labels=student.labels, sample_rate=SAMPLE_RATE)
    return front_end(folder, folder / "student.onnx")


def front_end(folder: Path, source: Path) -> Bundle:
    """Write what a float graph does before its first convolution, for both engines, as a bundle."""
    model = onnx.load(source)
    makers = {output: node.name for node in model.graph.node for output in node.output}
    behind = (node for node in model.graph.node if not node.name.startswith(FRONT_END))
    first = next(node for node in behind if node.op_type == "Conv")
    value = first.input[0]
    while not makers[value].startswith(FRONT_END):  # a reshape between the two
        value = next(node for node in model.graph.node if value in node.output).input[0]
    typed = onnx.shape_inference.infer_shapes(model)
    extracted = onnx.utils.Extractor(typed).extract_model([INPUT], [value])
    onnx.save(extracted, folder / "model.onnx")
    write_openvino(folder / "model.onnx", folder / "model.xml")
    names = ("model.onnx", "model.xml", "model.bin")
    return Bundle(
        labels=("front", "end"),
        default="fp32",
        models={"fp32": {"onnxruntime": "model.onnx", "openvino": "model.xml"}},
        files={name: bundles.sha256(folder / name) for name in names},
        output=value,
    )


def speeds(
    folder: Path, bundle: Bundle, work: Path, dense: tuple[Path, Bundle]
) -> dict[str, dict[str, float]]:
    """By engine: p50 of int8 in ms; how many times as fast it is, as a whole and after the front end.

    Args:
        dense: folder and bundle of the `dense_front_end`.
    """
    front = front_end(work, folder / bundle.model("onnxruntime", "fp32"))
    samples = speech_like(SECONDS)[None]
    found = {}
    for engine in ENGINES:
        calls: list[Predict] = [engines.start(folder, bundle, engine, p, 1) for p in ("fp32", "int8")]
        calls += [engines.start(*alone, engine, "fp32", 1) for alone in ((work, front), dense)]
        fp32, int8, before, slow = 1e3 * np.median(speed.times(calls, samples), axis=2)
        found[engine] = {
            "p50_ms": float(np.median(int8)),
            "speed": float(np.median(fp32 / int8)),
            "body_speed": float(np.median((fp32 - before) / np.maximum(int8 - before, 1e-6))),
            "front_ms": float(np.median(before)),
            "front_share": float(100 * np.median(before / slow)),
        }
    return found


def measure(
    student: Path, target: Path, cache: AudioCache, work: Path, dense: tuple[Path, Bundle]
) -> dict[str, Any]:
    """Everything about one student; `refused` is what the gate said, if it let nothing through."""
    out, front = work / "bundle", work / "front"
    front.mkdir(parents=True)
    config = ExportConfig(int8=True, formats=ENGINES[1:], force_int8=True)
    started, cpu, refused = time.perf_counter(), time.process_time(), None
    try:
        export_student(student, out, config, calibration=target, cache=cache)
    except ExportError as error:
        refused = str(error)
        export_student(student, out, replace(config, max_drop=100.0), calibration=target, cache=cache)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    bundle = bundles.load(out)
    clips = labelled_clips(target, Naming(bundle.labels), "all").clips
    classes = np.array([bundle.labels.index(str(clip.label)) for clip in clips])
    samples: list[Floats] = [cache.samples(clip, trim=True) for clip in clips]
    test = np.array([clip.split != "adapt" for clip in clips])
    row: dict[str, Any] = {"refused": refused, "export_s": seconds, "export_cpu_s": cpu, "clips": len(clips)}
    row["floats"] = [n for n, p in bundle.provenance["int8"]["layers"].items() if p != "int8"]
    row["kb"] = {name: (out / name).stat().st_size / 1000 for name in bundle.files}
    fp32 = probabilities(engines.start(out, bundle, "onnxruntime", "fp32", 1), samples)
    # In this process, which has decoded thousands of clips, int8 took 0.35 ms at first and 0.55 in the end.
    with workers.pool(1) as process:
        timed = process.submit(speeds, out, bundle, front, dense).result()
    for engine in ENGINES:
        int8 = probabilities(engines.start(out, bundle, engine, "int8", 1), samples)
        every, new = compare(fp32, int8, classes), compare(fp32[test], int8[test], classes[test])
        row[engine] = timed[engine] | {
            "agreement": every.agreement,
            "ua": every.fp32_ua,
            "drop": float(every.fp32_ua or 0) - float(every.ua or 0),
            "test_drop": float(new.fp32_ua or 0) - float(new.ua or 0),
        }
    new_clips = [clip for clip, new in zip(clips, test, strict=True) if new]
    row["speakers"] = known_speakers(out, new_clips, classes[test], cache)
    return row


def known_speakers(
    folder: Path, clips: Sequence[Clip], classes: np.ndarray, cache: AudioCache
) -> dict[str, float]:
    """UA in % on clips of new speakers: alone, and as the device gets to know them; and how both agree."""
    known, found = {}, {}
    for precision in ("fp32", "int8"):
        recognizer = Recognizer.load(folder, precision=precision)
        device = Device(recognizer)
        probs = {"alone": predict(device, clips, cache), "known": predict_known(device, clips, cache)}
        known[precision] = probs["known"].argmax(axis=1)
        for way, answers in probs.items():
            ua = unweighted_accuracy(classes, answers.argmax(axis=1), len(recognizer.labels))
            found[f"{precision} {way}"] = ua
    return found | {"agreement": 100 * float(np.mean(known["fp32"] == known["int8"]))}


def xs_kb(target: Path, cache: AudioCache, folder: Path) -> float:
    """Size of the int8 file of a student `xs`; its weights do not matter."""
    torch.manual_seed(0)
    student, source = Student(size="xs"), folder / "xs.onnx"
    write_onnx(frozen(student), source, labels=student.labels, sample_rate=SAMPLE_RATE)
    clips = [cache.samples(clip) for clip in calibration_clips(read_manifest(target, labels=None), 4)]
    return float(calibrate(onnx.load(source), clips).int8().ByteSize()) / 1000


def summary(rows: Sequence[dict[str, Any]], xs: float) -> dict[str, float]:
    """What `GOALS` asks for."""
    of = {engine: [row[engine] for row in rows] for engine in ENGINES}
    both = [found for engine in ENGINES for found in of[engine]]
    values = [float(np.mean([f["drop"] for f in both])), max(f["drop"] for f in both)]
    values += [min(f["agreement"] for f in both)]
    values += [min(f["speed"] for f in of[engine]) for engine in ENGINES]
    values += [min(f["body_speed"] for f in of[engine]) for engine in ENGINES]
    values += [max(f["front_share"] for f in of[engine]) for engine in ENGINES]
    values += [max(row["kb"]["model.int8.onnx"] for row in rows), xs, max(row["export_s"] for row in rows)]
    values += [max(f["p50_ms"] for f in of["onnxruntime"])]
    return dict(zip(GOALS, values, strict=True))


def show(rows: Sequence[dict[str, Any]], found: dict[str, float]) -> None:
    """Print the tables."""
    print(
        "| student | engine | UA fp32 | UA drop | on new speakers | agreement | p50 ms | x as fast | "
        "after the front end | int8 kB | export s (CPU) | layers in float |"
    )
    print("| --- | --- " + "| ---: " * 9 + "| --- |")
    for row in rows:
        for engine in ENGINES:
            f = row[engine]
            name = "model.int8.onnx" if engine == "onnxruntime" else "openvino/model.int8.bin"
            print(
                f"| {row['student']} | {engine} | {f['ua']:.1f} | {f['drop']:.2f} | {f['test_drop']:.2f} | "
                f"{f['agreement']:.1f} % | {f['p50_ms']:.2f} | {f['speed']:.2f} | {f['body_speed']:.2f} | "
                f"{row['kb'][name]:.0f} | {row['export_s']:.0f} ({row['export_cpu_s']:.0f}) | "
                f"{', '.join(row['floats']) or 'none'} |"
            )
        if row["refused"]:
            print(f"\n{row['student']}: the gate let nothing through: {row['refused']}\n")
    print("\nUA on new speakers, %, unknown to the device, and known by the clips before\n")
    print("| student | fp32 | int8 | fp32, known | int8, known | agreement, known |")
    print("| --- " + "| ---: " * 5 + "|")
    columns = ("fp32 alone", "int8 alone", "fp32 known", "int8 known", "agreement")
    for row in rows:
        print(f"| {row['student']} | " + " | ".join(f"{row['speakers'][c]:.1f}" for c in columns) + " |")
    means = (float(np.mean([row["speakers"][c] for row in rows])) for c in columns)
    print("| **mean** | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    print("\n| what | measured | goal | |\n| --- | ---: | ---: | --- |")
    for what, (unit, goal) in GOALS.items():
        reached = found[what] >= -goal if goal < 0 else found[what] <= goal
        bound = f"{'≥' if goal < 0 else '≤'} {abs(goal):g} {unit}"
        print(f"| {what} | {found[what]:.2f} {unit} | {bound} | {'' if reached else 'missed'} |")


def student_options(prog: str, about: str | None) -> argparse.ArgumentParser:
    """Options of a benchmark of `students`."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpora", type=Path, required=True, help="folder of corpora")
    parser.add_argument("--transfers", help="comma-separated SOURCE>TARGET; default: all pairs")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--newest", action="store_true", help="the last student, whatever its settings")
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "mifuse" / "transfers")
    parser.add_argument("--out", type=Path, help="JSON")
    return parser


def students(options: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    """Name -> student and target manifest of every transfer and seed.

    Raises:
        MifuseError: a student is not there.
    """
    corpora = find_corpora(options.corpora)
    pairs = [Transfer((a,), b) for b in corpora for a in corpora if a != b]
    if options.transfers:
        pairs = [Transfer.parse(text) for text in options.transfers.split(",")]
    unit = Unit(options.corpora, options.work, pairs[0], 0, TrainConfig(), named("default", []))
    found = {}
    for pair in pairs:
        for seed in range(options.seeds):
            folder = replace(unit, transfer=pair, seed=seed).student
            if options.newest:
                there = sorted(
                    folder.parent.glob(f"default-{seed}-*.student"), key=lambda f: f.stat().st_mtime
                )
                folder = there[-1] if there else folder
            if not folder.is_dir():
                raise MifuseError(f"{pair} seed {seed} has no student {folder}: run benchmarks.transfers")
            found[f"{pair} seed {seed}"] = (folder, options.corpora / pair.target / "target.csv")
    return found


def main() -> int:
    """Print the tables and write the JSON."""
    options = student_options("python -m benchmarks.export", __doc__).parse_args()
    torch.set_num_threads(1)
    cache, rows = AudioCache(), []
    try:
        todo = students(options)
    except MifuseError as error:
        print(error, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        dense = (Path(folder) / "dense", dense_front_end(Path(folder) / "dense"))
        for i, (name, (student, target)) in enumerate(todo.items()):
            rows.append({"student": name, **measure(student, target, cache, Path(folder) / str(i), dense)})
            print(f"[{i + 1}/{len(todo)}] {name}", file=sys.stderr, flush=True)
        found = summary(rows, xs_kb(target, cache, Path(folder)))
    print(f"{SECONDS:g} s of audio, one thread, {machine()}\n")
    show(rows, found)
    if options.out:
        document = {
            **provenance(),
            "machine": machine(),
            "seconds": SECONDS,
            "summary": found,
            "students": rows,
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
