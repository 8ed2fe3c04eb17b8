"""The teacher that reads: the real SDK against a server on loopback, message by message and by batches."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from draws_files import make_speech

from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Manifest
from mifuse.errors import MifuseError
from mifuse.teachers import batches, pacing
from mifuse.teachers.anthropic import PICTURE_TOKENS, AnthropicConfig, AnthropicTeacher
from mifuse.teachers.batches import label_by_batches
from mifuse.teachers.labelling import label_clips, plan
from mifuse.teachers.prices import price_of
from mifuse.teachers.questions import Labelled
from mifuse.teachers.service import ServiceError
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.ledger import Wanted, batch_owner
from tests.llm_server import LlmServer

MODEL = "claude-haiku-4-5"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    columns = {"speaker": ["ann"] * 3, "label": ["sad"] * 3, "transcript": ["so it is", "", ""]}
    return make_speech(tmp_path_factory.mktemp("speech"), 3, columns=columns)


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with LlmServer() as running:
        yield running


_TEACHERS: dict[str, Any] = {}


def label(
    server: LlmServer,
    manifest: Manifest,
    store_path: Path,
    draws: int = 2,
    batch: bool = False,
    budget: float | None = None,
    **settings: Any,
) -> tuple[Labelled, AnthropicTeacher]:
    teacher = AnthropicTeacher(AnthropicConfig(MODEL, server.url, **settings), manifest.clips)
    # The pictures are drawn once for all tests.
    teacher._voices = _TEACHERS.setdefault(str(manifest.path), None) or teacher.measure()
    _TEACHERS[str(manifest.path)] = teacher._voices

    async def run() -> Labelled:
        with DrawsStore(store_path) as store:
            questions = plan(manifest.clips, draws, store.keys(teacher.source), AudioCache()).questions
            price = price_of("anthropic", MODEL, batch=batch)
            try:
                if batch:
                    return await label_by_batches(
                        teacher, questions, store, price=price, budget=budget, poll=0.01
                    )
                return await label_clips(teacher, questions, store, price=price, budget=budget)
            finally:
                await teacher.close()

    return asyncio.run(run()), teacher


def question(request: dict[str, Any]) -> str:
    text: str = request["messages"][0]["content"][1]["text"]
    return text


def test_what_is_sent(server: LlmServer, manifest: Manifest, tmp_path: Path) -> None:
    run, teacher = label(server, manifest, tmp_path / "d.db", effort="low")
    assert (run.added, run.missing) == (6, ())
    assert len({question(request) for request in server.requests}) == 6
    for request in server.requests:
        picture, text = request["messages"][0]["content"]
        assert base64.b64decode(picture["source"]["data"]).startswith(b"\x89PNG")
        assert "median F0 | " in text["text"] and "3 recordings of this speaker" in text["text"]
        assert request["system"][0]["cache_control"] == {"type": "ephemeral"}
        assert request["output_config"]["effort"] == "low"
        assert request["output_config"]["format"]["schema"]["additionalProperties"] is False
        assert not {"temperature", "top_p", "top_k"} & set(request)
        said = json.dumps([request["system"], text])
        assert not any(word in said for word in ("ann", "c0", ".wav", str(tmp_path)))
    assert sum("so it is" in question(request) for request in server.requests) == 2
    price = price_of("anthropic", MODEL)
    paid = price.usd({"input": 900 * 6, "cache_read": 300 * 6, "output": 40 * 6})
    assert run.usd == pytest.approx(paid)
    # What is set aside covers what a server can bill for such a request.
    most = teacher.most_usage(manifest.clips[0], 1)
    assert most["input"] > PICTURE_TOKENS + len(question(server.requests[0])) / 3


@pytest.mark.parametrize("fault", ["refusal", "truncated", "prose", "empty", "sum"])
def test_spoiled_answers(server: LlmServer, manifest: Manifest, tmp_path: Path, fault: str) -> None:
    server.script = [fault]
    run, teacher = label(server, manifest, tmp_path / "d.db", draws=1, concurrency=1)
    assert (run.added, run.missing, run.invalid) == (3, (), fault != "prose")
    with DrawsStore(tmp_path / "d.db") as store:
        problems = " ".join(store.problems(teacher.source))
    assert {"refusal": "refused", "truncated": "cut off at 1024 tokens"}.get(fault, "") in problems


@pytest.mark.parametrize("fault", ["429", "529", "cut"])
def test_lost_requests_are_sent_again(
    server: LlmServer, manifest: Manifest, tmp_path: Path, fault: str
) -> None:
    server.script = [fault] * 2
    run, _ = label(server, manifest, tmp_path / "d.db", draws=1)
    assert (run.added, run.missing) == (3, ()) and set(server.sold.values()) == {1}


def test_the_key_shows_nowhere(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-sentinel-42")
    caplog.set_level(logging.DEBUG)
    shown = ""
    for batch in (False, True):
        with LlmServer() as server, pytest.raises(ServiceError, match=r"incorrect key \*\*\*") as refused:
            label(server, manifest, tmp_path / "d.db", batch=batch)
        shown += "".join(traceback.format_exception(refused.value))
    shown += caplog.text
    assert "sk-ant-sentinel-42" not in shown
    for file in tmp_path.rglob("*"):
        assert b"sk-ant-sentinel-42" not in file.read_bytes()


def test_effort_is_checked() -> None:
    with pytest.raises(MifuseError, match="effort = 'huge': use one of low, medium"):
        AnthropicConfig(MODEL, effort="huge")


# Batches


def test_a_batch_brings_all_at_half_the_price(server: LlmServer, manifest: Manifest, tmp_path: Path) -> None:
    run, teacher = label(server, manifest, tmp_path / "d.db", batch=True)
    assert (run.added, run.missing, run.invalid) == (6, (), 0)
    assert len(server.batches) == 1
    usage = {"input": 900 * 6, "cache_read": 300 * 6, "output": 40 * 6}
    assert run.usd == pytest.approx(price_of("anthropic", MODEL).usd(usage) / 2)
    with DrawsStore(tmp_path / "d.db") as store:
        assert store.batches(teacher.source) == []
        assert store.spent()[teacher.source] == (pytest.approx(run.usd), 0.0)
    # The same prompts as without a batch.
    (batch,) = server.batches.values()
    with LlmServer() as other:
        label(other, manifest, tmp_path / "other.db")
        asked = {question(request) for request in other.requests}
    assert {question(request["params"]) for request in batch["requests"]} == asked


def test_results_are_asked_of_the_named_host_alone(
    server: LlmServer, manifest: Manifest, tmp_path: Path
) -> None:
    """The key would go to wherever a reply says that the results are."""
    with LlmServer() as other:
        server.results_at = other.url
        with pytest.raises(ServiceError, match="nothing is sent there"):
            label(server, manifest, tmp_path / "d.db", batch=True)
        assert other.most_open == 0
    (batch,) = server.batches.values()
    batch["batch"]["results_url"] = batch["batch"]["results_url"].replace(other.url, server.url)
    assert label(server, manifest, tmp_path / "d.db", batch=True)[0].added == 6
    assert len(server.batches) == 1, "what was paid is collected, not bought again"


def test_invalid_and_failed_results_come_in_another_batch(
    server: LlmServer, manifest: Manifest, tmp_path: Path
) -> None:
    server.script = ["", "sum", "500", "expired"]
    run, teacher = label(server, manifest, tmp_path / "d.db", batch=True)
    assert (run.added, run.missing, run.invalid) == (6, (), 1)
    assert [len(batch["requests"]) for batch in server.batches.values()] == [6, 3]
    with DrawsStore(tmp_path / "d.db") as store:
        assert store.spent()[teacher.source] == (pytest.approx(run.usd), 0.0)


def test_results_that_never_come_are_reported(server: LlmServer, manifest: Manifest, tmp_path: Path) -> None:
    server.script = ["", "expired", "", "", "", "expired", "", "expired"]
    run, _ = label(server, manifest, tmp_path / "d.db", draws=1, batch=True)
    assert run.added == 2
    assert "expired: no answer within a day" in run.missing[0][1]


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("where", ["before sending", "sent, name lost", "waiting", "within the results"])
def test_a_batch_outlives_its_process(
    server: LlmServer, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The process dies at that place: nothing after it runs, and the store is as it was."""
    work = batches._Batches

    async def die(*_: object, **__: object) -> Any:
        raise _Killed

    if where == "before sending":
        monkeypatch.setattr(work, "_create", die)
    elif where == "sent, name lost":
        create = work._create

        async def lose(self: Any, batch: Any, requests: Any) -> str:
            await create(self, batch, requests)
            raise _Killed

        monkeypatch.setattr(work, "_create", lose)
    elif where == "waiting":
        monkeypatch.setattr(work, "_settle", die)
    else:
        kept = 0
        keep = batches.Run.keep

        async def keep_two(self: Any, *arguments: Any) -> Any:
            nonlocal kept
            kept += 1
            if kept > 2:
                raise _Killed
            return await keep(self, *arguments)

        monkeypatch.setattr(batches.Run, "keep", keep_two)
    with pytest.raises(_Killed):
        label(server, manifest, tmp_path / "d.db", batch=True)
    monkeypatch.undo()
    _ = _quick  # the key is gone with the rest
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    sent = len(server.batches)
    assert sent == (where != "before sending")
    run, teacher = label(server, manifest, tmp_path / "d.db", batch=True)
    assert run.missing == () and len(server.batches) == 1
    assert set(server.sold.values()) == {1} and len(server.sold) == 6
    with DrawsStore(tmp_path / "d.db") as store:
        assert len(store.keys(teacher.source)) == 6
        assert store.batches(teacher.source) == []
        assert store.spent()[teacher.source][1] == 0.0


def test_a_batch_whose_fate_is_unknown_is_found_by_the_next_run(
    server: LlmServer, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(*_: object) -> None:
        raise ServiceError("nobody there", "retry")

    server.script = ["cut"]
    with monkeypatch.context() as patch, pytest.raises(ServiceError, match="nobody there"):
        patch.setattr(batches._Batches, "_find", unreachable)
        label(server, manifest, tmp_path / "d.db", batch=True)
    run, teacher = label(server, manifest, tmp_path / "d.db", batch=True)
    assert run.missing == () and len(server.batches) == 1 and set(server.sold.values()) == {1}
    with DrawsStore(tmp_path / "d.db") as store:
        assert len(store.keys(teacher.source)) == 6 and store.spent()[teacher.source][1] == 0.0


def test_a_batch_that_another_process_is_sending_is_left_to_it(
    server: LlmServer, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, teacher = label(server, manifest, tmp_path / "d.db", draws=1)
    with DrawsStore(tmp_path / "d.db") as store:
        with monkeypatch.context() as patch:
            patch.setattr("mifuse.teachers.store.ledger.owner", lambda: "another-machine:1")
            number = store.open_batch(teacher.source)
        clip = AudioCache().hash(manifest.clips[0])
        store.reserve([Wanted(teacher.source, clip, (1,), 1, 0.1)], None, batch_owner(number), 60)
        run, _ = label(server, manifest, tmp_path / "d.db", draws=2, batch=True)
        assert run.added == 2 and "another process asks for it" in run.missing[0][1]
        assert [batch.number for batch in store.batches(teacher.source)] == [number]


@pytest.mark.parametrize("fault", ["529", "500", "cut"])
def test_a_batch_is_sent_once_however_often_sending_fails(
    server: LlmServer, manifest: Manifest, tmp_path: Path, fault: str
) -> None:
    server.script = [fault]
    run, _ = label(server, manifest, tmp_path / "d.db", batch=True)
    assert (run.added, run.missing) == (6, ()) and len(server.batches) == 1


def test_a_refused_batch_frees_what_was_set_aside(
    server: LlmServer, manifest: Manifest, tmp_path: Path
) -> None:
    server.script = ["400"]
    with pytest.raises(ServiceError, match="scripted 400"):
        label(server, manifest, tmp_path / "d.db", batch=True)
    with DrawsStore(tmp_path / "d.db") as store:
        assert store.total() == 0


def test_a_batch_stays_within_the_budget(server: LlmServer, manifest: Manifest, tmp_path: Path) -> None:
    run, _ = label(server, manifest, tmp_path / "d.db", batch=True, budget=0.005)
    assert run.unasked and run.added and run.added + run.unasked == 6
    with DrawsStore(tmp_path / "d.db") as store:
        assert store.total() <= 0.005
    again, _ = label(server, manifest, tmp_path / "d.db", batch=True, budget=1.0)
    assert again.added == run.unasked


def test_what_a_batch_asks_is_not_asked_by_message(
    server: LlmServer, manifest: Manifest, tmp_path: Path
) -> None:
    _, teacher = label(server, manifest, tmp_path / "d.db", draws=1)
    with DrawsStore(tmp_path / "d.db") as store:
        number = store.open_batch(teacher.source)
        clip = AudioCache().hash(manifest.clips[0])
        wanted = Wanted(teacher.source, clip, (1,), 1, 0.1)
        assert store.reserve([wanted], None, batch_owner(number), 60)[0].id
    run, _ = label(server, manifest, tmp_path / "d.db", draws=2)
    assert run.added == 2
    assert "an open batch asks for it: collect it with --batch" in run.missing[0][1]


def test_the_command(
    server: LlmServer, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "POLL", 0.01)
    words = ["label", manifest.path, "--teacher", "anthropic", "--model", MODEL, "--base-url", server.url]
    words += ["--draws", 1, "--store", tmp_path / "d.db", "--batch", "--json"]
    dry = CliRunner().invoke(main, [*map(str, words), "--dry-run"])
    assert json.loads(dry.stdout)["requests"] == 3 and json.loads(dry.stdout)["prices_of"].startswith("20")
    result = CliRunner().invoke(main, [*map(str, words), "--yes"])
    assert result.exit_code == 0, result.output
    assert "a picture and measurements of each voice, not the recordings, " in result.stderr
    assert "Measuring voices" in result.stderr
    assert json.loads(result.stdout)["added"] == 3 and len(server.batches) == 1
