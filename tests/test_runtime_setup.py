"""The device's distribution: one version with the workstation's, NumPy and ONNX Runtime only."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
from pathlib import Path

import pytest

import mifuse_runtime

ROOT = Path(__file__).resolve().parents[1]


def settings(folder: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(folder / "setup.cfg", encoding="utf-8")
    return parser


def test_one_version() -> None:
    sources = {settings(folder)["metadata"]["version"] for folder in (ROOT, ROOT / "runtime")}
    assert sources == {"attr: mifuse_runtime.__version__"}
    for name in ("mifuse", "mifuse-runtime"):
        try:
            assert importlib.metadata.version(name) == mifuse_runtime.__version__
        except importlib.metadata.PackageNotFoundError:
            continue


def test_needs_numpy_and_onnxruntime_alone() -> None:
    needs = settings(ROOT / "runtime")["options"]["install_requires"].split()
    assert [re.split(r"[<>=]", need)[0] for need in needs] == ["numpy", "onnxruntime"]
    assert set(needs) <= set(settings(ROOT)["options"]["install_requires"].split())


@pytest.mark.parametrize("name", ["license", "description"])
def test_says_what_it_is(name: str) -> None:
    assert settings(ROOT / "runtime")["metadata"][name]
