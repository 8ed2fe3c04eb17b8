"""ONNX Runtime 1.32 reports itself when it is imported: nothing of ours may let it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import make_bundle

SECONDS = 12  # after the import: the first look-up of 1.32.0 came between the 4th and the 14th
PROGRAMS = {
    "predict": "import numpy, mifuse_runtime as m; m.Recognizer.load(B).predict(numpy.ones(800, 'f4'))",
    "command": "from mifuse_runtime.__main__ import main; main(['verify', B])",
    "export": "import mifuse_export",
    "workstation": "import mifuse.exporting.bench, onnxruntime",
}


def _run(program: str, home: Path, *tracer: str, **variables: str) -> None:
    """Run a program with an empty home and none of the variables that keep ONNX Runtime silent."""
    home.mkdir()
    quiet = ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    environment.pop("XDG_CACHE_HOME", None)
    command = [*tracer, sys.executable, "-c", program]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_written_to_the_home(name: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    _run(f"B = {str(bundle)!r}\n{PROGRAMS[name]}", tmp_path / "home")
    assert [str(path) for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


def test_the_variable_of_an_app_is_left_alone(tmp_path: Path) -> None:
    program = "import os, mifuse_runtime; assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'"
    _run(program, tmp_path / "home", ORT_DISABLE_TELEMETRY="0")


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_no_name_is_looked_up(tmp_path: Path) -> None:
    bundle, calls = make_bundle(tmp_path / "bundle"), tmp_path / "calls.txt"
    program = f"import time\nB = {str(bundle)!r}\n{PROGRAMS['predict']}\ntime.sleep({SECONDS})"
    tracer = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(calls)]
    probe = [*tracer, sys.executable, "-c", "import socket; socket.socket().close()"]
    if subprocess.run(probe, capture_output=True, check=False).returncode or not calls.read_text():
        pytest.skip("this machine lets nobody trace a process")
    _run(program, tmp_path / "home", *tracer)
    asked = [line for line in calls.read_text().splitlines() if "AF_INET" in line]
    assert asked == []
