"""Kotlin and Swift on ONNX Runtime's stock packages: the graph and the steps around it give Python's numbers.

Kotlin is compiled and run against a stub of ONNX Runtime's Java interface, where there is a compiler
(MIFUSE_KOTLINC). No Swift compiler runs here: a twin in NumPy takes constants and names of both files, on the
real graph.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mifuse_runtime import Recognizer
from tests.bundles import RATE, make_bundle, speech

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
KOTLINC = os.environ.get("MIFUSE_KOTLINC") or shutil.which("kotlinc")
CONSTANTS = {
    "Emotion.kt": r"FRAME = (\d+)\s.*?QUIET = (\S+)\s.*?SHORTEST = (\d+)",
    "Emotion.swift": r"\(frame, quiet, shortest\) = \((\d+), Float\((\S+)\), (\d+)\)",
}


def clips() -> list[np.ndarray]:
    """Speech with silence around it, loud and faint, without, shorter than a frame, and nothing."""
    rng = np.random.default_rng(0)
    quiet = (1e-4 * rng.standard_normal(RATE)).astype(np.float32)
    loud = speech(1.5)
    return [np.concatenate([quiet, loud, quiet[:333]]), 0.05 * loud, loud[:399], loud[:0], 0 * quiet]


def twin(samples: np.ndarray, frame: int, quiet: float, shortest: int) -> np.ndarray:
    """What both files hand to the graph."""
    energies = np.array([np.sum(samples[at : at + frame] ** 2) for at in range(0, len(samples), frame)])
    loud = np.flatnonzero(energies >= energies.max() * quiet) if len(energies) else np.array([], int)
    if len(loud):
        samples = samples[loud[0] * frame : (loud[-1] + 1) * frame]
    return np.pad(samples, (0, max(0, shortest - len(samples))))


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_steps_around_the_graph_give_the_numbers_of_python(name: str, tmp_path: Path) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    frame, quiet, shortest = re.search(CONSTANTS[name], text, re.DOTALL).groups()  # type: ignore[union-attr]
    bundle = make_bundle(tmp_path / "bundle", precisions=("int8",))
    session = onnxruntime.InferenceSession(bundle / "model.int8.onnx")
    names = (session.get_inputs()[0].name, session.get_outputs()[0].name)
    assert all(f'"{said}"' in text for said in names)
    recognizer = Recognizer.load(bundle)
    for samples in clips()[:3]:
        wanted = recognizer.predict(samples, gate=False).scores
        given = twin(samples, int(frame), float(quiet), int(shortest))
        (probs,) = session.run(None, {names[0]: given[None]})
        assert dict(zip(recognizer.labels, probs[0].tolist(), strict=True)) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.skipif(
    not (KOTLINC and shutil.which("java")),
    reason="no Kotlin compiler: npm install kotlin-compiler, and name its bin/kotlinc in MIFUSE_KOTLINC",
)
def test_kotlin_compiles_and_hands_over_what_the_twin_does(tmp_path: Path) -> None:
    sources = [EXAMPLES / "Emotion.kt", *sorted((ROOT / "tests" / "kotlin").glob("*.kt"))]
    build = [KOTLINC, *sources, "-Werror", "-include-runtime", "-d", tmp_path / "emotion.jar"]
    subprocess.run(build, check=True, timeout=300)
    text = "\n".join(" ".join(map(repr, samples.tolist())) for samples in clips()) + "\n"
    command = ["java", "-jar", tmp_path / "emotion.jar"]
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    given, answers = run.stdout.splitlines()[::2], run.stdout.splitlines()[1::2]
    assert answers == ["{angry=0.5, calm=0.5}"] * len(clips())
    for line, samples in zip(given, clips(), strict=True):
        np.testing.assert_array_equal(np.array(line.split(), np.float32), twin(samples, 400, 1e-4, 1600))
