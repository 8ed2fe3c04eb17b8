"""Environments of the peers, made once below a folder: what each needs, pinned, and its size."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Versions of November 2026. silero-vad asks for torch, which its ONNX model does not need.
NEEDS: dict[str, list[list[str]]] = {
    "mifuse": [["numpy==2.4.6", "onnxruntime==1.32.0"], ["--no-deps", str(ROOT / "runtime")]],
    "librosa": [["librosa==0.11.0", "scikit-learn==1.9.1"]],
    "opensmile": [["opensmile==2.6.0"]],
    "silero": [["numpy==2.4.6", "onnxruntime==1.32.0"], ["--no-deps", "silero-vad==6.2.3"]],
    "audonnx": [["audonnx==1.0.1", "onnxruntime==1.32.0"]],
    "onnxruntime": [["numpy==2.4.6", "onnxruntime==1.32.0"]],
}


HERE, WEB = Path(__file__).resolve().parent, ROOT / "runtime" / "web"


def environment(name: str, below: Path) -> tuple[list[str], list[Path]]:
    """The command that starts a worker in the environment `name`, made if it is not there, and its packages.

    Raises:
        RuntimeError: it cannot be installed; half of it is not kept.
    """
    if name == "node":
        node, engine = shutil.which("node"), WEB / "node_modules" / "onnxruntime-web"
        if not node or not engine.is_dir():
            raise RuntimeError("node: Node or onnxruntime-web is missing: `make web`")
        return [node, str(HERE / "worker.mjs")], [engine, WEB / "mifuse", WEB / "mifuse.js"]
    folder = below / name
    python = folder / "bin" / "python"
    done = folder / "installed"
    needs = repr(NEEDS[name])
    if not (done.is_file() and done.read_text(encoding="utf-8") == needs and name != "mifuse"):
        venv.create(folder, with_pip=False, clear=not done.is_file(), symlinks=True)
        for packages in NEEDS[name]:
            command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-input"]
            run = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
            if run.returncode:
                lines = run.stderr.strip().splitlines() or ["pip failed"]
                raise RuntimeError(f"{name}: {lines[-1]}")
        done.write_text(needs, encoding="utf-8")
    return [str(python), str(HERE / "worker.py")], [*(folder / "lib").glob("python*/site-packages")]


def installed_mb(packages: Iterable[Path]) -> float:
    """MB that files and folders take, as installed; of pip's, not what Python compiled."""
    every = (file for place in packages for file in (place, *place.rglob("*")))
    return sum(file.stat().st_size for file in every if file.is_file() and file.suffix != ".pyc") / 1e6
