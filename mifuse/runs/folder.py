"""Run folders: what `mifuse train` and `mifuse adapt` leave behind, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from mifuse.errors import TrainingError
from mifuse.runs.predictions import Predictions, write_predictions
from mifuse.runs.processes import is_main_process, on_main_process

LIBRARIES = ("mifuse", "torch", "torchaudio", "transformers", "numpy")
RECORD = "run.json"
STATE = "state.safetensors"  # of a run that is not finished


@contextlib.contextmanager
def open_run(out: Path, *, resume: bool = False, force: bool = False) -> Iterator[Path]:
    """The folder beside `out` in which a run keeps its state until `close_run`.

    When the run fails, the folder stays only if there is something to resume.

    Raises:
        TrainingError: `out` exists and `force` is not given, or an interrupted run waits for a decision.
    """
    partial = on_main_process(lambda: _prepare(out, resume, force))
    try:
        yield partial
    finally:
        if is_main_process() and not (partial / STATE).exists():
            shutil.rmtree(partial, ignore_errors=True)


def _prepare(out: Path, resume: bool, force: bool) -> Path:
    if out.exists() or out.is_symlink():
        if not force:
            raise TrainingError(f"{out} exists: choose another folder, or replace the run with --force")
        # A slip of the hand must not cost a folder of recordings.
        if out.is_symlink() or not (out / RECORD).is_file():
            raise TrainingError(f"{out} exists and is not a run: it is not replaced, choose another folder")
    partial = out.resolve().with_name(f"{out.resolve().name}.partial")
    if partial.exists() and any(partial.iterdir()) and not resume:
        if not force:
            raise TrainingError(
                f"{partial} holds an interrupted run: "
                "continue it with `mifuse adapt --resume`, or start anew with --force"
            )
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    return partial


class Model(Protocol):
    """What a run leaves: a student, or a hub classifier."""

    labels: tuple[str, ...]

    def save_pretrained(self, folder: Path, /) -> object:
        """Write config.json and model.safetensors."""


def close_run(
    partial: Path,
    out: Path,
    student: Model,
    record: Mapping[str, Any],
    predictions: Predictions | None = None,
) -> None:
    """Write checkpoint, run.json and predictions.csv, then put the folder in its place.

    Args:
        record: what `mifuse report` shows, JSON-serialisable.

    Raises:
        TrainingError: the disk does not take it.
    """
    on_main_process(lambda: _finish(partial, out, student, record, predictions))


def _finish(
    partial: Path, out: Path, student: Model, record: Mapping[str, Any], predictions: Predictions | None
) -> None:
    with writing(partial):
        student.save_pretrained(partial)
    if predictions is not None:
        write_predictions(partial / "predictions.csv", predictions)
    document = {**record, "labels": student.labels, "versions": versions()}
    (partial / RECORD).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    # Last: killed before it is in its place, the run can still be resumed.
    (out / STATE).unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what safetensors says about a full disk into one line."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise TrainingError(
            f"{folder} cannot be written ({error}): make room or choose another folder"
        ) from error


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {name: version for name in LIBRARIES if (version := _version(name))}
    return found | {"python": platform.python_version()}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
