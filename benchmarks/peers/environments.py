"""Environments of the peers, made once below a folder: what each needs, pinned, and its size."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Versions of November 2026. silero-vad asks for torch, which its ONNX model does not need.
NEEDS: dict[str, list[list[str]]] = {
    "mifuse": [["numpy==2.4.6", "onnxruntime==1.32.0"], ["--no-deps", str(ROOT / "runtime")]],
    "librosa": [["librosa==0.11.0", "scikit-learn==1.9.1"]],
    "opensmile": [["opensmile==2.6.0"]],
    "silero": [["numpy==2.4.6", "onnxruntime==1.32.0"], ["--no-deps", "silero-vad==6.2.3"]],
    "onnxruntime": [["numpy==2.4.6", "onnxruntime==1.32.0"]],
}


def environment(name: str, below: Path) -> Path:
    """The Python of the environment `name`, made if it is not there.

    Raises:
        RuntimeError: it cannot be installed; half of it is not kept.
    """
    folder = below / name
    python = folder / "bin" / "python"
    done = folder / "installed"
    needs = repr(NEEDS[name])
    if done.is_file() and done.read_text(encoding="utf-8") == needs and name != "mifuse":
        return python
    venv.create(folder, with_pip=False, clear=not done.is_file(), symlinks=True)
    for packages in NEEDS[name]:
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-input"]
        run = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or ["pip failed"]
            raise RuntimeError(f"{name}: {lines[-1]}")
    done.write_text(needs, encoding="utf-8")
    return python


def installed_mb(python: Path) -> float:
    """MB that the packages of an environment take, as installed."""
    (packages,) = (python.parent.parent / "lib").glob("python*/site-packages")
    files = (file for file in packages.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return sum(file.stat().st_size for file in files) / 1e6
