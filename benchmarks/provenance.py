"""Where a number comes from: the command, the commit, and the files that it was computed by."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import mifuse
import mifuse_export
import mifuse_runtime

HERE = Path(__file__).resolve().parent


def provenance() -> dict[str, str]:
    """For a results file."""
    return {"command": command(), "date": time.strftime("%Y-%m-%d"), "commit": commit()}


def command() -> str:
    """As it was typed."""
    module = Path(sys.argv[0]).resolve()
    part = module.parent.name if module.stem == "__main__" else module.stem
    name = f"benchmarks.{part}" if HERE in (module.parent, module.parent.parent) else module.name
    return shlex.join(["python", "-m", name, *sys.argv[1:]])


def commit() -> str:
    """The commit of this tree, with a word when files differ from it."""
    try:
        head = _git("rev-parse", "HEAD").strip()
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a git checkout"
    return f"{head} and changes" if changed else head


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=HERE, check=True, capture_output=True, text=True).stdout


def code_files() -> list[Path]:
    """Every file that a stored result may depend on: the three packages and the benchmark's own methods."""
    packages = [Path(str(package.__file__)).parent for package in (mifuse, mifuse_export, mifuse_runtime)]
    found = [file for folder in (*packages, HERE / "baselines") for file in sorted(folder.rglob("*.py"))]
    return [*found, HERE / "units.py"]
