"""Run folders: what `mifuse train` and `mifuse adapt` leave behind, written whole or not at all."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mifuse.errors import TrainingError
from mifuse.predictions import Predictions, write_predictions
from mifuse.student import Student

LIBRARIES = ("mifuse", "torch", "torchaudio", "transformers", "numpy")


def open_run(out: Path, *, resume: bool = False, force: bool = False) -> Path:
    """The folder beside `out` in which a run keeps its state until `close_run`.

    Raises:
        TrainingError: `out` exists and `force` is not given, or an interrupted run waits for a decision.
    """
    partial = out.with_name(f"{out.name}.partial")
    if out.exists() and not force:
        raise TrainingError(f"{out} exists: choose another folder, or replace it with --force")
    if partial.exists() and not resume:
        if not force:
            raise TrainingError(
                f"{partial} holds an interrupted run: continue it with --resume, or start anew with --force"
            )
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def close_run(
    partial: Path,
    out: Path,
    student: Student,
    record: Mapping[str, Any],
    predictions: Predictions | None = None,
) -> None:
    """Write checkpoint, run.json and predictions.csv, then put the folder in its place.

    Args:
        record: what `mifuse report` shows, JSON-serialisable.
    """
    student.save_pretrained(partial)
    if predictions is not None:
        write_predictions(partial / "predictions.csv", predictions)
    document = {**record, "labels": student.labels, "versions": versions()}
    (partial / "run.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (partial / "state.safetensors").unlink(missing_ok=True)
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {name: version for name in LIBRARIES if (version := _version(name))}
    return found | {"python": platform.python_version()}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
