"""Why int8 files of OpenVINO come from the QDQ graph: that file beside NNCF's of the same student.

    python -m benchmarks.quantizers --corpora DIR [--transfers A>B,…] [--seeds 1] [--newest] [--out FILE]

Same students, calibration clips and judges as in `benchmarks.export`: every labelled clip of the target, one
thread, timed in turns. `same layers` quantises what the QDQ graph does, `as it comes` all but the front end,
and `accuracy control` puts layers of that back to float until 99.5 % of the calibration clips are decided as
by fp32.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
import openvino
import torch

from benchmarks.export import SECONDS, student_options, students
from benchmarks.latency import machine, speech_like
from benchmarks.provenance import provenance
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import read_manifest
from mifuse.errors import MifuseError
from mifuse.evaluation import labelled_clips
from mifuse.exporting.calibration import calibration_clips
from mifuse.exporting.student import export_student
from mifuse_export import ExportConfig, speed
from mifuse_export.parity import Floats, Predict, compare, probabilities
from mifuse_export.quantize import FRONT_END, PROSODY, body
from mifuse_export.speech import MODULE as GATE
from mifuse_runtime import bundle as bundles
from mifuse_runtime import engines
from mifuse_runtime.bundle import Bundle

CLIPS = 100  # of the calibration
AGREEMENT = 0.995  # share of them, as fp32 decides
Quantize = Callable[[openvino.Model, Sequence[Floats]], openvino.Model]
STAYS_FLOAT = nncf.IgnoredScope(
    patterns=[f"{module}.*" for module in (FRONT_END, GATE, PROSODY)], validate=False
)


def same_layers(layers: Collection[str]) -> Quantize:
    """`nncf.quantize` of these ONNX nodes and no others, biases corrected layer by layer as ours are."""

    def quantize(model: openvino.Model, clips: Sequence[Floats]) -> openvino.Model:
        names = [op.get_friendly_name() for op in model.get_ordered_ops()]
        left_out = [name for name in names if name.removesuffix("/WithoutBiases") not in layers]
        others = nncf.IgnoredScope(names=left_out, validate=False)
        data = nncf.Dataset(clips, lambda clip: clip[None])
        return nncf.quantize(model, data, subset_size=CLIPS, ignored_scope=others, fast_bias_correction=False)

    return quantize


def as_it_comes(model: openvino.Model, clips: Sequence[Floats]) -> openvino.Model:
    """`nncf.quantize` of everything after the front end but the gate of speech."""
    data = nncf.Dataset(clips, lambda clip: clip[None])
    return nncf.quantize(model, data, subset_size=CLIPS, ignored_scope=STAYS_FLOAT)


def accuracy_control(model: openvino.Model, clips: Sequence[Floats]) -> openvino.Model:
    """`nncf.quantize_with_accuracy_control`, judged by the share of clips that are decided as by fp32."""
    fp32 = openvino.compile_model(model, "CPU")
    answered = [(clip[None], int(fp32(clip[None])[0].argmax())) for clip in clips]
    data = nncf.Dataset(answered, lambda pair: pair[0])

    def agreement(int8: Any, pairs: Iterable[tuple[Floats, int]]) -> tuple[float, list[float]]:
        same = [float(int8(clip)[0].argmax() == top) for clip, top in pairs]
        return float(np.mean(same)), same

    return nncf.quantize_with_accuracy_control(
        model,
        data,
        data,
        agreement,
        max_drop=1 - AGREEMENT,
        subset_size=CLIPS,
        ignored_scope=STAYS_FLOAT,
    )


def start(folder: Path, bundle: Bundle, file: str) -> Predict:
    """An IR of the folder, as the runtime runs it on one thread."""
    files = {name: bundles.sha256(folder / name) for name in (file, file.replace(".xml", ".bin"))}
    only = Bundle(labels=bundle.labels, default="fp32", models={"fp32": {"openvino": file}}, files=files)
    return engines.start(folder, only, "openvino", "fp32", 1)


def measure(student: Path, target: Path, cache: AudioCache, work: Path) -> dict[str, dict[str, Any]]:
    """By the file's maker: what it loses, weighs and takes."""
    folder = work / "bundle"
    export_student(
        student,
        folder,
        ExportConfig(int8=True, formats=("openvino",), force_int8=True, max_drop=100),
        calibration=target,
        cache=cache,
    )
    bundle = bundles.load(folder)
    chosen = calibration_clips(read_manifest(target, labels=None), CLIPS)
    rows: list[Floats] = [cache.samples(clip, trim=True) for clip in chosen]
    graph = onnx.load(folder / "model.onnx")
    makers: dict[str, Quantize] = {
        "NNCF, same layers": same_layers(body(graph)),
        "NNCF, as it comes": as_it_comes,
        "NNCF, accuracy control": accuracy_control,
    }
    files = {"from QDQ": bundle.model("openvino", "int8")}
    seconds: dict[str, float | None] = {"from QDQ": None}
    for i, (name, quantize) in enumerate(makers.items()):
        started, files[name] = time.perf_counter(), f"nncf-{i}.xml"
        model = quantize(openvino.convert_model(folder / "model.onnx"), rows)
        openvino.save_model(model, folder / files[name], compress_to_fp16=False)
        seconds[name] = time.perf_counter() - started
    calls = {name: start(folder, bundle, file) for name, file in files.items()}
    fp32 = start(folder, bundle, bundle.model("openvino", "fp32"))
    spent = 1e3 * np.median(speed.times([fp32, *calls.values()], speech_like(SECONDS)[None]), axis=2)
    clips = labelled_clips(target, Naming(bundle.labels), "all").clips
    classes = np.array([bundle.labels.index(str(clip.label)) for clip in clips])
    samples: list[Floats] = [cache.samples(clip, trim=True) for clip in clips]
    expected = probabilities(fp32, samples)
    found = {}
    for i, (name, call) in enumerate(calls.items()):
        quality = compare(expected, probabilities(call, samples), classes)
        found[name] = asdict(quality) | {
            "drop": float(quality.fp32_ua or 0) - float(quality.ua or 0),
            "speed": float(np.median(spent[0] / spent[i + 1])),
            "p50_ms": float(np.median(spent[i + 1])),
            "kb": (folder / files[name]).with_suffix(".bin").stat().st_size / 1000,
            "seconds": seconds[name],
        }
    return found


def show(rows: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print one table, the mean of the students last."""
    print(f"{SECONDS:g} s of audio, one thread, OpenVINO, {machine()}\n")
    columns = ("drop", "agreement", "mean_abs_dp", "max_abs_dp", "speed", "kb")
    print("| student | int8 by | UA drop | agreement | mean Δp | max Δp | x as fast | .bin kB |")
    print("| --- | --- " + "| ---: " * len(columns) + "|")
    makers = next(iter(rows.values()))
    mean = {
        maker: {c: float(np.mean([found[maker][c] for found in rows.values()])) for c in columns}
        for maker in makers
    }
    for student, found in (rows | {"**mean**": mean}).items():
        for maker, f in found.items():
            print(
                f"| {student} | {maker} | {f['drop']:.2f} | {f['agreement']:.1f} % | "
                f"{f['mean_abs_dp']:.4f} | {f['max_abs_dp']:.3f} | {f['speed']:.2f} | {f['kb']:.0f} |"
            )


def main() -> int:
    """Print the table and write the JSON."""
    options = student_options("python -m benchmarks.quantizers", __doc__).parse_args()
    torch.set_num_threads(1)
    logging.getLogger("nncf").setLevel(logging.ERROR)
    cache, rows = AudioCache(), {}
    try:
        todo = students(options)
    except MifuseError as error:
        print(error, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, (student, target)) in enumerate(todo.items()):
            rows[name] = measure(student, target, cache, Path(folder) / str(i))
            print(f"[{i + 1}/{len(todo)}] {name}", file=sys.stderr, flush=True)
    show(rows)
    if options.out:
        document = {
            **provenance(),
            "machine": machine(),
            "seconds": SECONDS,
            "nncf": nncf.__version__,
            "students": rows,
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
