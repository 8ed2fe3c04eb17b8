"""Three tests that cost money, a cent each: they run only where a key is set, and send synthetic speech.

MIFUSE_LIVE_OPENAI_MODEL and MIFUSE_LIVE_ANTHROPIC_MODEL choose other models.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.demo.synth import make_domain

OPENAI = os.environ.get("MIFUSE_LIVE_OPENAI_MODEL", "gpt-audio")
ANTHROPIC = os.environ.get("MIFUSE_LIVE_ANTHROPIC_MODEL", "claude-haiku-4-5")


def needs(name: str) -> Any:
    return pytest.mark.skipif(not os.environ.get(name), reason=f"{name} is not set: nothing is bought")


def label(folder: Path, teacher: str, model: str, *more: str) -> dict[str, Any]:
    manifest = make_domain(folder, "studio", speakers=1, clips_per_speaker=2, seconds=1.5)
    words = ["label", str(manifest), "--teacher", teacher, "--model", model, "--store", str(folder / "d.db")]
    words += ["--draws", "2", "--budget-usd", "0.2", "--yes", "--json", *more]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@needs("OPENAI_API_KEY")
def test_openai_takes_audio(tmp_path: Path) -> None:
    found = label(tmp_path, "openai", OPENAI)
    assert found["added"] == 4 and 0 < found["usd"] < 0.2


@needs("ANTHROPIC_API_KEY")
def test_claude_reads(tmp_path: Path) -> None:
    found = label(tmp_path, "anthropic", ANTHROPIC)
    assert found["added"] == 4 and 0 < found["usd"] < 0.2


@needs("ANTHROPIC_API_KEY")
def test_a_second_run_buys_nothing(tmp_path: Path) -> None:
    label(tmp_path, "anthropic", ANTHROPIC)
    assert label(tmp_path, "anthropic", ANTHROPIC)["added"] == 0
