"""The documentation as a site: it builds without a warning, and its pages of errors quote real ones."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("mifuse", "export/mifuse_export", "runtime/mifuse_runtime")
    for path in (ROOT / folder).rglob("*.py")
)
# Messages may be put together from several literals.
JOINED = re.sub(r'"\s*\n\s*f?"', "", SOURCES)
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


@pytest.mark.skipif(
    not (find_spec("mkdocs") and find_spec("material") and find_spec("mkdocstrings")),
    reason="the site's builder is missing: pip install 'mifuse[docs]'",
)
def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    pages = {page.relative_to(tmp_path / "site").as_posix() for page in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "reference/commands/index.html", "reference/python/index.html"} <= pages
    commands = (tmp_path / "site/reference/commands/index.html").read_text(encoding="utf-8")
    assert "mifuse fetch" in commands and "mifuse-runtime predict" in commands
    python = (tmp_path / "site/reference/python/index.html").read_text(encoding="utf-8")
    assert "feed_all" in python and "_ask" not in python
    outside = set(re.findall(r'(?:src|href)="(https?://[^"]+)"', commands))
    assert not {url for url in outside if url.endswith((".js", ".css"))}, "the site fetches from elsewhere"


@pytest.mark.parametrize("message", re.findall(r"^\| `([^`]+)` \|", PAGE, flags=re.MULTILINE))
def test_its_errors_are_ours(message: str) -> None:
    if message in ("cannot open shared object file", "No such command"):
        pytest.skip("of the system or of click")
    assert message in JOINED
