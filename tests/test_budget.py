"""`mifuse label` with money at stake: budgets, several processes, kill -9, dry runs, consent."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from draws_files import make_speech

from mifuse.cli import main
from mifuse.teachers.prices import price_of
from mifuse.teachers.store.database import DrawsStore
from tests.llm_server import LlmServer

PRICES = "2.5,10,2.5"  # audio as text: the server's own count separates them only within a request
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with LlmServer() as running:
        yield running


def command(server: LlmServer, folder: Path, *arguments: object) -> list[str]:
    words = ["label", folder / "target.csv", "--teacher", "openai", "--model", "m", "--price", PRICES]
    words += ["--base-url", f"{server.url}/v1", "--store", folder / "d.db", "--per-request", 1, *arguments]
    return list(map(str, words))


def run(server: LlmServer, folder: Path, *arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(main, command(server, folder, "--json", *arguments))
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result.output


def start(server: LlmServer, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mifuse", *command(server, folder, "--yes", "--json", *arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def bill(server: LlmServer) -> float:
    """What the server's own count of tokens costs."""
    usage = {"input": server.usage["prompt_tokens"], "output": server.usage["completion_tokens"]}
    return price_of("openai", "m", PRICES).usd(usage)


def test_the_budget_is_never_passed_and_a_higher_one_goes_on(server: LlmServer, tmp_path: Path) -> None:
    make_speech(tmp_path, 100, seconds=0.05)
    server.latency = 0.2  # far longer than a request costs a slow CPU, so that many are open at once
    whole = run(server, tmp_path, "--draws", 2, "--dry-run")["usd_at_most"]
    budget = 0.0603
    output = run(server, tmp_path, "--draws", 2, "--yes", "--budget-usd", budget, code=1)
    assert "draws are missing because another request could pass the budget of $0.0603" in output
    assert "run again with a higher --budget-usd to go on" in output
    assert server.most_open > 4
    bought = sum(server.sold.values())
    with DrawsStore(tmp_path / "d.db") as store:
        assert bill(server) == pytest.approx(store.total())
    # As much as possible was bought: not one request more fits for sure.
    assert budget - whole / 200 < bill(server) <= budget
    run(server, tmp_path, "--draws", 2, "--budget-usd", budget, code=1)
    assert sum(server.sold.values()) == bought
    assert run(server, tmp_path, "--draws", 2, "--budget-usd", whole)["added"] == 200 - bought
    assert set(server.sold.values()) == {1} and len(server.sold) == 200


@pytest.mark.parametrize("budget", ["nan", "inf"])
def test_a_budget_is_an_amount(server: LlmServer, tmp_path: Path, budget: str) -> None:
    make_speech(tmp_path, 1)
    output = run(server, tmp_path, "--yes", "--budget-usd", budget, code=2)
    assert f"--budget-usd {budget}: give an amount, or leave it out for no bound" in output
    assert not server.sent and not (tmp_path / "d.db").exists()


def test_a_budget_too_small_for_one_request_sends_none(server: LlmServer, tmp_path: Path) -> None:
    make_speech(tmp_path, 3)
    output = run(server, tmp_path, "--draws", 2, "--yes", "--budget-usd", 0, code=1)
    assert "6 draws are missing" in output
    assert not server.sent


def test_two_processes_share_work_and_budget(server: LlmServer, tmp_path: Path) -> None:
    make_speech(tmp_path, 40, seconds=0.05)
    server.latency = 0.03
    running = [
        start(server, tmp_path, "--draws", 2, "--concurrency", 8, "--budget-usd", 0.03) for _ in range(2)
    ]
    for process in running:
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 1 and "could pass the budget of $0.03" in output, output
    assert 0.02 < bill(server) <= 0.03
    run(server, tmp_path, "--draws", 2)
    assert set(server.sold.values()) == {1} and len(server.sold) == 80


def test_kill_9_buys_nothing_twice(server: LlmServer, tmp_path: Path) -> None:
    make_speech(tmp_path, 60, seconds=0.05)
    server.latency = 0.02
    chance = random.Random(4)
    for _ in range(2):
        before = sum(server.sold.values())
        process = start(server, tmp_path, "--draws", 2, "--concurrency", 8)
        deadline = time.monotonic() + 60
        while sum(server.sold.values()) < before + chance.randint(3, 30) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        process.communicate()
    done = run(server, tmp_path, "--draws", 2)
    assert done["present"] + done["added"] == 120
    # By the server's own count each draw was bought once; some requests were sent again, under the same key.
    assert set(server.sold.values()) == {1} and len(server.sold) == 120
    with DrawsStore(tmp_path / "d.db") as store:
        ((paid, open_ones),) = store.spent().values()
        assert paid == pytest.approx(bill(server))
        assert open_ones > 0  # what was open when it was killed still counts
        (source,) = store.sources()
        assert len(store.keys(source)) == 120


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio.run turns Ctrl-C into a cancellation since 3.11"
)
def test_ctrl_c_waits_for_what_is_paid(server: LlmServer, tmp_path: Path) -> None:
    make_speech(tmp_path, 60, seconds=0.05)
    server.latency = 0.5
    process = start(server, tmp_path, "--draws", 2)
    deadline = time.monotonic() + 60
    while len(server.requests) < 12 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "Aborted!" in output and "Traceback" not in output
    assert "answers are on their way: Ctrl-C again to lose them" in output
    assert 12 <= sum(server.sold.values()) < 120
    with DrawsStore(tmp_path / "d.db") as store:
        ((paid, unsettled),) = store.spent().values()
        assert paid == pytest.approx(bill(server)) and unsettled == 0


def test_dry_run_tells_the_price_and_sends_nothing(
    server: LlmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")  # not needed to look
    make_speech(tmp_path, 5, seconds=1.0)
    found = run(server, tmp_path, "--dry-run", "--draws", 2)
    assert not server.sent and not (tmp_path / "d.db").exists()
    assert (found["clips"], found["missing"], found["requests"]) == (5, 10, 10)
    tokens = found["tokens_at_most"]
    assert tokens["output"] == 3000 and tokens["audio"] == 10 * 80
    assert found["usd_at_most"] == pytest.approx(
        (3.125 * tokens["input"] + 10 * 3000 + 2.5 * tokens["audio"]) / 1e6, abs=1e-6
    )
    assert "usd_likely" not in found and found["prices_of"] == "--price"
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    done = run(server, tmp_path, "--yes", "--draws", 2)
    likely = run(server, tmp_path, "--dry-run", "--draws", 4)["usd_likely"]
    assert likely == pytest.approx(done["usd"], abs=1e-5) and likely < found["usd_at_most"]


def test_dry_run_counts_what_cannot_be_read(server: LlmServer, tmp_path: Path) -> None:
    make_speech(tmp_path, 3)
    whole = run(server, tmp_path, "--dry-run", "--draws", 2)
    (tmp_path / "c1.wav").write_bytes(b"RIFF")
    found = run(server, tmp_path, "--dry-run", "--draws", 2)
    assert (found["unreadable"], found["requests"], whole["requests"]) == (1, 4, 6)
    assert found["usd_at_most"] == pytest.approx(whole["usd_at_most"] * 2 / 3, abs=1e-6)
    assert "unreadable" not in whole


def test_what_leaves_is_said_and_agreed_to_once(server: LlmServer, tmp_path: Path) -> None:
    make_speech(tmp_path, 2)
    output = run(server, tmp_path, "--draws", 1, code=2)
    assert "the recordings (up to 30 s of each) and their transcripts, if any, go to 127.0.0.1" in output
    assert "say --yes" in output and not server.sent
    result = CliRunner().invoke(main, command(server, tmp_path, "--draws", 1, "--yes"))
    assert "go to 127.0.0.1" in result.stderr and result.exit_code == 0
    result = CliRunner().invoke(main, command(server, tmp_path, "--draws", 2))
    assert "go to 127.0.0.1" not in result.stderr and result.exit_code == 0


def test_a_temperature_of_zero_is_one(server: LlmServer, tmp_path: Path) -> None:
    make_speech(tmp_path, 1)
    run(server, tmp_path, "--draws", 2, "--yes", "--temperature", 0)
    assert [request["temperature"] for request in server.requests] == [0.0, 0.0]


def test_no_key_is_said_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    make_speech(tmp_path, 2)
    words = ["label", tmp_path / "target.csv", "--teacher", "openai", "--model", "gpt-audio", "--store"]
    result = CliRunner().invoke(main, list(map(str, [*words, tmp_path / "d.db", "--yes"])))
    assert result.exit_code == 1 and "OPENAI_API_KEY is not set" in result.output
    assert not (tmp_path / "d.db").exists() and "OPENAI_API_KEY" not in os.environ
