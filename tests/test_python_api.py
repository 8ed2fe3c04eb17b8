"""`import mifuse`: its names, how little it loads, and every block of docs/python-api.md."""

from __future__ import annotations

import ast
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mifuse
from benchmarks.baselines import BASELINES
from mifuse.fusion import WEIGHTINGS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "python-api.md"
NAMES = [
    "read_manifest",
    "prepare",
    "train_classifier",
    "load_model",
    "load_draws",
    "fuse",
    "adapt",
    "AdaptConfig",
    "RECIPES",
    "evaluate",
    "export_student",
    "ExportConfig",
    "Student",
]


def test_every_name_is_there() -> None:
    assert set(NAMES) == set(mifuse.__all__) - {"__version__"}
    assert set(NAMES) <= set(dir(mifuse))
    for name in NAMES:
        assert getattr(mifuse, name).__doc__ or name == "RECIPES"
    with pytest.raises(AttributeError, match="no attribute 'adaptt'"):
        mifuse.adaptt  # noqa: B018


def test_a_function_stays_one_whatever_is_imported() -> None:
    import mifuse.adaptation
    import mifuse.evaluation

    assert callable(mifuse.adapt) and callable(mifuse.evaluate) and callable(mifuse.fusion.fuse)


def test_importing_loads_nothing_large() -> None:
    code = "import sys, mifuse; print(sorted({'torch', 'numpy', 'onnxruntime', 'click'} & set(sys.modules)))"
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "export", "runtime"))
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": paths}
    )
    assert run.stdout == "[]\n"


def test_transformers_waits_for_an_encoder() -> None:
    """It takes 2 s to import, more than torch: a run without encoders is spared them."""
    slow = ("transformers", "mifuse.models.attention")
    for path in sorted((ROOT / "mifuse").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert path.name == "attention.py" or not any(name.startswith(slow) for name in names), path


def test_the_page_shows_every_name() -> None:
    blocks = "".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE))
    assert [name for name in NAMES if f"mifuse.{name}" not in blocks and name != "AdaptConfig"] == []


def test_every_block_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIFUSE_CACHE", str(tmp_path / "cache"))
    for registry in (WEIGHTINGS, BASELINES):  # the page adds to both
        for name in registry:
            monkeypatch.setitem(registry, name, registry[name])
    before = {*WEIGHTINGS, *BASELINES}
    text = PAGE.read_text(encoding="utf-8").replace("\n```", "\n\n```")
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    found = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    for registry in (WEIGHTINGS, BASELINES):
        for name in {*registry} - before:
            del registry[name]
    assert found.attempted > 30 and found.failed == 0
