"""A bundle without Python, in C++ against ONNX Runtime's interface, and on aarch64, which qemu emulates."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

from mifuse.demo.synth import DOMAINS, make_speaker, synthesise
from mifuse.models.student import Student
from mifuse_runtime import Prediction, Recognizer, read_audio
from mifuse_runtime.settings import NO_SPEECH
from tests.bundles import LABELS, RATE, graph
from tests.test_export import export, lived_in

ROOT = Path(__file__).resolve().parent.parent
# Of probabilities; int8 turns the last bit of a feature into a step of 1/256 wherever it is near the border.
CLOSE = {"fp32": 1e-4, "int8": 5e-3}
# Of ONNX Runtime, with onnxruntime_cxx_api.h; `.ci/run` fetches it, Debian 13's libonnxruntime-dev has it.
INCLUDE = Path(os.environ.get("MIFUSE_ORT_INCLUDE", "/usr/include/onnxruntime"))
ARM = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3t64", "libzstd1")
PYTHON = ("python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib")
WHEELS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
RECORDINGS = {"a.wav": 3.0, "b.wav": 1.3, "c.wav": 0.05}  # seconds
# The command on the recordings, in each of the precisions.
PREDICT = """
import sys
from mifuse_runtime.__main__ import main
cut = sys.argv.index("--")
for precision in sys.argv[1:cut]:
    if main(["predict", "bundle", *sys.argv[cut + 1 :], "--json", "--precision", precision]):
        sys.exit(1)
"""
SOUNDS = ("silence.wav", "hiss.wav", "tone.wav", "faint.wav")  # no speech, but for the last


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an exported bundle of both precisions, and recordings."""
    folder = tmp_path_factory.mktemp("native")
    torch.manual_seed(0)
    ranges = {"arousal": (1.0, 7.0), "valence": (-1.0, 1.0)}
    export(lived_in(Student(size="xs", dimensions=ranges)), folder / "bundle", dimensions=ranges)
    rng = np.random.default_rng(0)
    speaker = make_speaker(DOMAINS["studio"], rng)
    for name, seconds in RECORDINGS.items():
        clip = synthesise("happy", speaker, DOMAINS["studio"], rng, max(seconds, 1.0))
        soundfile.write(folder / name, clip[: int(seconds * RATE)], RATE, subtype="PCM_16")
    time = np.arange(2 * RATE) / RATE
    made = (0 * time, rng.normal(0, 0.1, time.size), 0.3 * np.sin(2800 * time), clip[: 2 * RATE] * 0.01)
    for name, samples in zip(SOUNDS, made, strict=True):
        soundfile.write(folder / name, samples, RATE, subtype="PCM_16")
    return folder


def answers(place: Path, precision: str) -> dict[str, Prediction]:
    """What Python says of the recordings on this machine."""
    recognizer = Recognizer.load(place / "bundle", precision=precision)
    found = {name: recognizer.predict(read_audio(place / name)) for name in (*RECORDINGS, *SOUNDS)}
    # The graph answered, not the gate.
    assert NO_SPEECH not in (found["a.wav"].state, found["b.wav"].state, found["faint.wav"].state)
    assert {found[name].state for name in ("c.wav", *SOUNDS[:3])} == {NO_SPEECH}
    return found


@pytest.mark.skipif(
    not (shutil.which("g++") and (INCLUDE / "onnxruntime_cxx_api.h").exists() and sys.platform == "linux"),
    reason="g++ or ONNX Runtime's headers are missing (MIFUSE_ORT_INCLUDE): the C++ example is skipped",
)
def test_cpp(place: Path) -> None:
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (place / name).symlink_to(library)
    source = ROOT / "docs" / "examples" / "predict.cpp"
    build = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", source, "-isystem", INCLUDE]
    build += ["-L", place, "-lonnxruntime", f"-Wl,-rpath,{place}", "-o", place / "predict"]
    subprocess.run(build, check=True, timeout=300)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["./predict", *arguments], cwd=place, capture_output=True, text=True, check=False
        )

    for precision, model in (("fp32", "model.onnx"), ("int8", "model.int8.onnx")):
        found = run(f"bundle/{model}", *RECORDINGS, *SOUNDS)
        assert found.returncode == 0, found.stderr
        wanted = answers(place, precision)
        for (name, prediction), line in zip(wanted.items(), found.stdout.splitlines(), strict=True):
            path, *rest = line.split()
            assert path == name
            if prediction.state == NO_SPEECH:
                assert rest == ["no", "speech"]
                continue
            assert tuple(rest[::2]) == (*LABELS, "arousal", "valence")
            assert [float(share) for share in rest[1::2]] == pytest.approx(
                [*prediction.scores.values(), *prediction.dimensions.values()], abs=6 * CLOSE[precision]
            )
    _check_views(place, run)

    whole = (place / "a.wav").read_bytes()
    (place / "short.wav").write_bytes(whole[:-100])
    soundfile.write(place / "stereo.wav", np.zeros((RATE, 2)), RATE)
    for name, message in (
        ("short.wav", "cut short"),
        ("stereo.wav", "not 16-bit PCM, one channel, 16 kHz"),
        ("bundle/bundle.json", "no WAV file"),
        ("missing.wav", "no WAV file"),
    ):
        refused = run("bundle/model.onnx", name)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert refused.stderr.startswith(f"{name}: {message}")
    assert run("nowhere.onnx", "a.wav").returncode == 1


def _check_views(place: Path, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Some emotions alone, several as one, and a model that has none."""
    recognizer, samples = Recognizer.load(place / "bundle", precision="fp32"), read_audio(place / "a.wav")
    low = {"low": ["neutral", "sad"]}
    for words, view in (
        (("--labels", "sad,angry"), recognizer.subset(["angry", "sad"])),
        (("--group", "low=neutral+sad"), recognizer.grouped(low)),
        (
            ("--labels", "angry,sad,neutral", "--group", "low=neutral+sad"),
            recognizer.subset(["angry", "neutral", "sad"]).grouped(low),
        ),
    ):
        _, *rest = run("bundle/model.onnx", *words, "a.wav").stdout.split()
        found, wanted = dict(zip(rest[::2], map(float, rest[1::2]), strict=True)), view.predict(samples)
        assert list(found) == [*view.labels, "arousal", "valence"]
        assert found == pytest.approx({**wanted.scores, **wanted.dimensions}, abs=1e-3)
    for words, said in (
        (("--labels", "bored,sad"), "'bored'"),
        (("--group", "sad"), "NAME=A+B"),
        (("--group", "low=bored"), "'bored'"),
    ):
        refused = run("bundle/model.onnx", *words, "a.wav")
        assert refused.returncode == 1 and said in refused.stderr and refused.stderr.count("\n") == 1
    model = onnx.load_from_string(graph(classes=0, dimensions=1))
    onnx.helper.set_model_props(
        model, {"labels": "[]", "dimensions": '["arousal"]', "ranges": "[[1.0, 7.0]]"}
    )
    onnx.save(model, place / "numbers.onnx")
    path, name, value = run("numbers.onnx", "a.wav").stdout.split()
    assert (path, name) == ("a.wav", "arousal") and 1 <= float(value) <= 7


@pytest.mark.skipif(
    "MIFUSE_AARCH64" not in os.environ or platform.machine() != "x86_64" or not shutil.which("apt-get"),
    reason="MIFUSE_AARCH64 is not set, or this is no x86-64 Debian: aarch64 is not emulated",
)
def test_aarch64(place: Path, tmp_path: Path) -> None:
    debian = ROOT / ".ci" / "debian"
    subprocess.run([debian, "arm64", tmp_path / "arm", *ARM, *PYTHON], check=True)
    subprocess.run([debian, "amd64", tmp_path / "qemu", "qemu-user"], check=True)
    install = [sys.executable, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
    install += ["--only-binary", ":all:", "--python-version", "3.13", "--target", tmp_path / "site"]
    install += [f"--platform={wheel}" for wheel in WHEELS]
    subprocess.run([*install, "numpy", "onnxruntime"], check=True)
    python = [
        tmp_path / "qemu/usr/bin/qemu-aarch64",
        "-L",
        tmp_path / "arm",
        tmp_path / "arm/usr/bin/python3.13",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (tmp_path / "site", ROOT / "runtime"))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # The newest processor, and one without dot products of bytes, which has other kernels for int8. Most of a
    # run is the start of Python and ONNX Runtime: one a processor.
    for cpu, precisions in (("max", ("fp32", "int8")), ("cortex-a53", ("int8",))):
        run = subprocess.run(
            [*python, "-c", PREDICT, *precisions, "--", *RECORDINGS],
            cwd=place,
            env={**environment, "QEMU_CPU": cpu},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        wanted = {precision: answers(place, precision) for precision in precisions}
        lines = run.stdout.splitlines()
        for (precision, name), line in zip(product(precisions, RECORDINGS), lines, strict=True):
            expected = pytest.approx(wanted[precision][name].scores, abs=CLOSE[precision])
            assert json.loads(line)["scores"] == expected, (cpu, precision)
