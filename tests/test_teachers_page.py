"""docs/teachers.md, followed word for word, with servers on loopback in the place of the services."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from draws_files import make_speech

from mifuse.cli import main
from tests.llm_server import LlmServer
from tests.test_classifier import save_hub

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "teachers.md").read_text(encoding="utf-8")


def test_its_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("mifuse ")]
    columns = {"split": ["adapt", "adapt", "test"], "label": ["sad", "angry", "sad"]}
    make_speech(tmp_path, 3, columns=columns)
    monkeypatch.chdir(tmp_path)
    hub = save_hub(tmp_path / "hub", "Hubert", ("neu", "hap", "ang", "sad"))
    with LlmServer(polls=0) as server:
        for name, address in (("OPENAI", f"{server.url}/v1"), ("ANTHROPIC", server.url)):
            monkeypatch.setenv(f"{name}_API_KEY", server.key)
            monkeypatch.setenv(f"{name}_BASE_URL", address)
        ran = 0
        for line in lines:
            words = shlex.split(line.replace("http://localhost:8000", server.url))[1:]
            if any(word.startswith(("local:", "funasr:")) for word in words):  # 7 billion weights; 400 MB
                continue
            words = [word.replace("superb/hubert-large-superb-er", str(hub)) for word in words]
            more = ["--yes"] if words[0] == "label" and "--dry-run" not in words else []
            result = CliRunner().invoke(main, words + more)
            assert result.exit_code == 0, f"{line}\n{result.output}"
            ran += 1
    assert ran == 6
    assert len(server.sold) > 0 and len(server.batches) == 1


def test_its_options_exist() -> None:
    commands = (["label"], ["draws", "info"], ["draws", "prune"], ["adapt"])
    known = "".join(CliRunner().invoke(main, [*words, "-h"]).output for words in commands)
    assert not {option for option in re.findall(r"`[^`|]*?(--[a-z][a-z-]+)", PAGE) if option not in known}
