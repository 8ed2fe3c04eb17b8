"""Both SDK teachers against a server that nobody here wrote: fakellm, a mock of the two protocols."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from draws_files import make_speech

from mifuse.cli import main
from mifuse.teachers.store.database import DrawsStore

RULES = """
version: 1
rules:
  - name: overloaded_once
    when: {messages_contain: "judge the emotion in this voice", turn: 1}
    respond: {status: 429, error: "slow down"}
  - name: emotions
    when: {messages_contain: "emotion"}
    respond:
      content: 'I hear: {"angry": 0.1, "happy": 0.2, "neutral": 0.3, "sad": 0.4}'
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fakellm")
    (folder / "fakellm.yaml").write_text(RULES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "fakellm.cli", "serve", "--port", str(port)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except urllib.error.HTTPError:
                break  # it answers
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None, "fakellm does not start"
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize(("teacher", "suffix"), [("openai", "/v1"), ("anthropic", "")])
def test_the_command(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: str, suffix: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
    make_speech(tmp_path, 3)
    words = ["label", tmp_path / "target.csv", "--teacher", teacher, "--model", "m", "--price", "1,1"]
    words += ["--base-url", address + suffix, "--store", tmp_path / "d.db", "--draws", 2, "--yes", "--json"]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["added"] == 6
    with DrawsStore(tmp_path / "d.db") as store:
        (source,) = store.sources()
        draws = list(store.draws(source))
        assert {tuple(sorted(draw.answer.probs.items())) for draw in draws} == {
            (("angry", 0.1), ("happy", 0.2), ("neutral", 0.3), ("sad", 0.4))
        }
        assert any(draw.answer.usage for draw in draws)
    # By the server's own count: six answers, and one 429 for each question in that wording.
    with urllib.request.urlopen(f"{address}/_fakellm/stats", timeout=5) as reply:
        stats = json.load(reply)
    asked = [one["matched_rule"] for one in stats["recent"] if one["api"] == teacher]
    assert asked.count("emotions") == 6 and asked.count("overloaded_once") > 0
