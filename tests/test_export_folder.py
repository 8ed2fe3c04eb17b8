"""The folder of a bundle: replaced whole, or left as it was."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from torch import nn

from mifuse_export import ExportError
from mifuse_runtime import bundle as bundles
from tests.test_export import Tiny, export


def test_force_replaces_a_bundle_whole_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ExportError, match="exists: choose another"):
        export(Tiny(), out)
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="is not a bundle"):
        export(Tiny(), out, force=True)
    (out / "bundle.json").write_text("{}")
    export(Tiny(), out, labels=("a", "b"), int8=False, calibration=[], force=True)
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "bundle.json", "model.onnx"]
    assert bundles.load(out).default == "fp32"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        export(Tiny(), tmp_path / "file" / "out")


def test_a_full_disk_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "bundle.json").write_text("old")

    def full(model: nn.Module, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("mifuse_export.bundle.write_onnx", full)
    with pytest.raises(ExportError, match=f"{tmp_path} has no space left: make room"):
        export(Tiny(), out, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "bundle.json").read_text() == "old"


def test_a_full_disk_is_not_taken_for_an_engines_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: nn.Module, path: Path, **_: object) -> None:
        raise ExportError("basic_ios::clear: iostream error")

    monkeypatch.setattr("mifuse_export.bundle.write_onnx", full)
    with pytest.raises(ExportError, match="iostream"):
        export(Tiny(), tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(ExportError, match="has no space left"):
        export(Tiny(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
