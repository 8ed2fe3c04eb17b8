"""The folder of a bundle: there as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mifuse_export.errors import ExportError
from mifuse_runtime import bundle as bundles

_FULL = 1 << 16  # bytes left on a disk that an engine could not write to


def check_out(out: Path, force: bool) -> None:
    """Refuse to write over anything, except over a bundle when `force` is set.

    Raises:
        ExportError: `out` is there.
    """
    if out.exists() or out.is_symlink():
        if not force:
            raise ExportError(f"{out} exists: choose another folder, or replace the bundle with --force")
        if not (out / bundles.NAME).is_file():
            raise ExportError(f"{out} exists and is not a bundle: it is not replaced, choose another folder")


@contextlib.contextmanager
def new_folder(out: Path, force: bool) -> Iterator[Path]:
    """A temporary sibling that becomes `out` when all went well and is gone when it did not."""
    check_out(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{os.getpid()}.part")
    folder.mkdir()
    try:
        with _telling_a_full_disk(folder):
            yield folder
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        if out.exists():
            out.rename(old)
        folder.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _telling_a_full_disk(folder: Path) -> Iterator[None]:
    """Say so where it is one: engines call it "iostream error", and the system names no file."""
    try:
        yield
    except (OSError, ExportError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(folder).free < _FULL:
            place = folder.parent
            raise ExportError(f"{place} has no space left: make room, or choose another folder") from error
        raise
