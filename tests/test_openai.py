"""The OpenAI-shaped teacher: the real SDK against a server on loopback that goes wrong on demand."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draws_files import make_speech

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Manifest
from mifuse.errors import MifuseError
from mifuse.teachers import pacing
from mifuse.teachers import session as run_module
from mifuse.teachers.labelling import label_clips, plan
from mifuse.teachers.openai import OpenAIConfig, OpenAITeacher
from mifuse.teachers.prices import price_of
from mifuse.teachers.questions import Labelled
from mifuse.teachers.service import ServiceError
from mifuse.teachers.session import FIRST_TRIES, GIVE_UP, MAX_ATTEMPTS, SENSELESS
from mifuse.teachers.store.database import DrawsStore
from tests.llm_server import SPOILED, LlmServer, any_answer, audio_of

PRICE = price_of("openai", "m", "2.5,10,32")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with LlmServer() as running:
        yield running


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_speech(tmp_path_factory.mktemp("speech"), 6)


def label(
    server: LlmServer, manifest: Manifest, store_path: Path, draws: int = 2, **settings: Any
) -> tuple[Labelled, OpenAITeacher]:
    teacher = OpenAITeacher(OpenAIConfig("m", server.url + "/v1", **settings))

    async def run() -> Labelled:
        with DrawsStore(store_path) as store:
            questions = plan(manifest.clips, draws, store.keys(teacher.source), AudioCache()).questions
            try:
                return await label_clips(teacher, questions, store, price=PRICE)
            finally:
                await teacher.close()

    return asyncio.run(run()), teacher


def test_what_is_sent(server: LlmServer, tmp_path: Path) -> None:
    columns = {"label": ["angry", "sad"], "speaker": ["anna", "bert"], "transcript": ["we won", ""]}
    manifest = make_speech(tmp_path, 2, columns=columns)
    run, teacher = label(server, manifest, tmp_path / "d.db", draws=6)
    assert (run.added, run.missing) == (12, ())
    # 6 draws are 4 of one prompt and 2 of another, in one request each.
    assert sorted(request.get("n", 1) for request in server.requests) == [2, 2, 4, 4]
    samples, sent = AudioCache().samples(manifest.clips[0]), [audio_of(one) for one in server.requests]
    assert sum(one.shape == samples.shape and np.allclose(one, samples, atol=1e-6) for one in sent) == 2
    texts = {request["messages"][1]["content"][0]["text"] for request in server.requests}
    assert len(texts) == 4
    assert sum('Transcript: "we won"' in text for text in texts) == 2
    for request in server.requests:
        assert request["response_format"]["json_schema"]["schema"]["required"]
        assert (request["temperature"], request["max_completion_tokens"]) == (1.0, 300)
        said = json.dumps([request["messages"][0], request["messages"][1]["content"][0]])
        assert not any(word in said for word in ("c0", "anna", "bert", str(tmp_path)))
    with DrawsStore(tmp_path / "d.db") as store:
        draws = list(store.draws(teacher.source))
        assert {draw.answer.request_id for draw in draws} == {"req"}
        paid = [draw.answer for draw in draws if draw.answer.usage]
        assert len(paid) == 4
        assert sum(a.price_usd or 0 for a in paid) == pytest.approx(run.usd) == store.total()
        text, audio, out = (server.usage[k] for k in ("prompt_tokens", "audio", "completion_tokens"))
        audio = sum(a.usage["audio"] for a in paid if a.usage)
        assert run.usd == pytest.approx(PRICE.usd({"input": text - audio, "audio": audio, "output": out}))


def test_draws_of_one_prompt_differ_and_a_second_run_asks_nothing(
    server: LlmServer, manifest: Manifest, tmp_path: Path
) -> None:
    _, teacher = label(server, manifest, tmp_path / "d.db", draws=4)
    with DrawsStore(tmp_path / "d.db") as store:
        first = [tuple(draw.answer.probs.values()) for draw in list(store.draws(teacher.source))[:4]]
    assert len(set(first)) > 1
    count = len(server.requests)
    assert label(server, manifest, tmp_path / "d.db", draws=4)[0] == Labelled(0, ())
    assert len(server.requests) == count


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"logprobs": True}, {"per_request": 1}])
def test_without_chance_each_draw_has_a_prompt_of_its_own(
    server: LlmServer, manifest: Manifest, tmp_path: Path, settings: dict[str, Any]
) -> None:
    run, _ = label(server, manifest, tmp_path / "d.db", draws=4, **settings)
    assert run.added == 24
    assert not any("n" in request for request in server.requests)
    assert len({request["messages"][1]["content"][0]["text"] for request in server.requests}) == 4


def test_probabilities_of_tokens(server: LlmServer, manifest: Manifest, tmp_path: Path) -> None:
    server.answer = lambda _, labels: {label: {"sad": 0.6, "angry": 0.3}.get(label, 0.05) for label in labels}
    run, teacher = label(server, manifest, tmp_path / "d.db", logprobs=True)
    assert run.added == 12
    assert all(one["top_logprobs"] == 20 and "response_format" not in one for one in server.requests)
    with DrawsStore(tmp_path / "d.db") as store:
        for draw in store.draws(teacher.source):
            assert draw.answer.probs == pytest.approx(
                {"angry": 0.3, "happy": 0.05, "neutral": 0.05, "sad": 0.6}
            )


def test_a_server_without_token_probabilities(
    server: LlmServer, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlmServer, "_choice", lambda *_: {
        "index": 0, "message": {"role": "assistant", "content": "sad"},
        "finish_reason": "stop", "logprobs": None,
    })  # fmt: skip
    with pytest.raises(MifuseError, match="gives no token probabilities: use --probs verbal"):
        label(server, manifest, tmp_path / "d.db", logprobs=True)


def test_long_clips_are_cut(server: LlmServer, manifest: Manifest, tmp_path: Path) -> None:
    label(server, replace(manifest, clips=manifest.clips[:1]), tmp_path / "d.db", draws=1, max_seconds=0.25)
    assert len(audio_of(server.requests[0])) == 4000


@pytest.mark.parametrize("refused", [("schema",), ("n",), ("schema", "n")])
def test_what_the_server_refuses_is_left_out_and_said_once(
    server: LlmServer,
    manifest: Manifest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    refused: tuple[str, ...],
) -> None:
    server.refuses = refused
    run, _ = label(server, manifest, tmp_path / "d.db", draws=4, concurrency=1)
    assert (run.added, run.missing, run.invalid) == (24, (), 0)
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert f"refuses {' and '.join(sorted(refused))} (127.0.0.1 answered 400" in warnings[0]
    # At most three tries were lost in finding out.
    assert server.statuses[400] <= 3


def test_a_server_that_ignores_n_is_asked_by_calls(
    server: LlmServer, manifest: Manifest, tmp_path: Path
) -> None:
    server.ignores_n = True
    run, _ = label(server, manifest, tmp_path / "d.db", draws=4)
    assert (run.added, run.missing) == (24, ())
    assert len(server.requests) == 24


@pytest.mark.parametrize("fault", SPOILED)
def test_spoiled_answers(server: LlmServer, manifest: Manifest, tmp_path: Path, fault: str) -> None:
    server.script = [fault]
    run, teacher = label(server, manifest, tmp_path / "d.db", concurrency=1, per_request=1)
    assert (run.added, run.missing) == (12, ())
    assert run.invalid == (fault != "prose")  # prose around one object is fine
    with DrawsStore(tmp_path / "d.db") as store:
        assert sum(store.problems(teacher.source).values()) == run.invalid
        # Paid too, and part of what the server has billed.
        assert store.total() == pytest.approx(run.usd)
        assert len(list(store.draws(teacher.source))) + run.invalid == sum(server.sold.values())


def test_a_clip_that_never_gets_a_valid_answer_is_reported(
    server: LlmServer, manifest: Manifest, tmp_path: Path
) -> None:
    server.answer = lambda _, labels: dict.fromkeys(labels, 1.0)
    one = replace(manifest, clips=manifest.clips[:1])
    run, teacher = label(server, one, tmp_path / "d.db", draws=1)
    assert run.added == 0 and run.invalid == MAX_ATTEMPTS
    assert "5 invalid answers, the last: the answer: the probabilities sum to 4" in run.missing[0][1]
    # Each attempt was worded differently.
    assert len({request["messages"][1]["content"][0]["text"] for request in server.requests}) == MAX_ATTEMPTS
    # A second run does not buy more of the same, until the invalid answers are pruned.
    assert label(server, one, tmp_path / "d.db", draws=1)[0].invalid == 0
    with DrawsStore(tmp_path / "d.db") as store:
        assert store.prune(teacher.source, "invalid") == MAX_ATTEMPTS
    server.answer = lambda _, labels: {label: float(label == "sad") for label in labels}
    assert label(server, one, tmp_path / "d.db", draws=1)[0].added == 1


def test_a_model_that_never_makes_sense_stops_the_run(server: LlmServer, tmp_path: Path) -> None:
    manifest = make_speech(tmp_path, 40, seconds=0.05)
    server.answer = lambda _, labels: dict.fromkeys(labels, 1.0)
    with pytest.raises(
        ServiceError, match=r"none of \d+ answers .* the probabilities sum to 4.*check --model"
    ):
        label(server, manifest, tmp_path / "d.db", per_request=1, concurrency=4)
    assert SENSELESS <= sum(server.sold.values()) <= SENSELESS + 4 * MAX_ATTEMPTS
    server.answer = any_answer  # once it has made sense, bad answers are bad luck
    label(server, replace(manifest, clips=manifest.clips[-1:]), tmp_path / "d.db", per_request=1)
    server.answer = lambda _, labels: dict.fromkeys(labels, 1.0)
    run, _ = label(server, manifest, tmp_path / "d.db", per_request=1)
    assert len(run.missing) == 78


@pytest.mark.parametrize("fault", ["429", "500", "503", "529", "cut", "hang"])
def test_lost_requests_are_sent_again(
    server: LlmServer, manifest: Manifest, tmp_path: Path, fault: str
) -> None:
    server.script = [fault] * 3
    run, teacher = label(server, manifest, tmp_path / "d.db", timeout=0.3)
    assert (run.added, run.missing, run.invalid) == (12, (), 0)
    assert set(server.sold.values()) == {1}
    with DrawsStore(tmp_path / "d.db") as store:
        paid, unsettled = store.spent()[teacher.source]
    # Whether a request without an answer was billed is unknown: it counts with the most that it can cost.
    assert (unsettled > 0) == (fault in ("cut", "hang"))
    assert run.usd == pytest.approx(paid + unsettled)


def test_retry_after_is_honoured(server: LlmServer, manifest: Manifest, tmp_path: Path) -> None:
    import time

    server.script, server.retry_after = ["429"], "0.6"
    started = time.monotonic()
    label(server, replace(manifest, clips=manifest.clips[:1]), tmp_path / "d.db", draws=1)
    assert time.monotonic() - started > 0.6


def test_a_mix_of_all_faults_loses_nothing(tmp_path: Path) -> None:
    manifest = make_speech(tmp_path, 20, seconds=0.05)
    with LlmServer(mix=0.2, retry_after="0.01") as server:
        run, teacher = label(server, manifest, tmp_path / "d.db", draws=5, per_request=1)
    assert (run.added, run.missing) == (100, ())
    assert set(server.sold.values()) == {1}
    with DrawsStore(tmp_path / "d.db") as store:
        invalid = sum(store.problems(teacher.source).values())
    assert len(server.sold) == 100 + invalid and invalid > 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("404", "check --model and --base-url"),
        ("501", "check --model and --base-url"),
        ("401", "check the key in the environment"),
    ],
)
def test_errors_that_concern_everything_stop_at_once(
    server: LlmServer, manifest: Manifest, tmp_path: Path, fault: str, message: str
) -> None:
    server.script = ["", fault]
    with pytest.raises(ServiceError, match=message):
        label(server, manifest, tmp_path / "d.db", concurrency=1, per_request=1)
    assert len(server.requests) == 2


def test_a_service_that_is_down_stops_the_run(
    server: LlmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.001)
    manifest = make_speech(tmp_path, 30, seconds=0.05)
    server.script = ["500"] * 10_000
    with pytest.raises(ServiceError, match=f"scripted 500; {GIVE_UP} requests in a row had no answer"):
        label(server, manifest, tmp_path / "d.db", concurrency=2)
    assert len(server.requests) <= 10 * (GIVE_UP + 2)
    server.script = ["400"] * 10_000
    with pytest.raises(ServiceError, match=f"{GIVE_UP} requests in a row"):
        label(server, manifest, tmp_path / "d.db", concurrency=2)


def test_no_server_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(run_module, "backoff", lambda tries: waits.append(tries) or 0.0)
    nowhere = LlmServer()
    nowhere.url = "http://127.0.0.1:9"
    with pytest.raises(
        ServiceError, match=r"127.0.0.1 cannot be reached .*: check the network and --base-url"
    ):
        label(nowhere, make_speech(tmp_path, 12, 0.05), tmp_path / "d.db")
    assert max(waits) < FIRST_TRIES  # a wrong address is said within seconds
    with DrawsStore(tmp_path / "d.db") as store:
        assert store.total() == 0  # nothing was sent, so nothing can have been billed


def test_a_clip_that_cannot_be_read_does_not_stop_the_others(server: LlmServer, tmp_path: Path) -> None:
    manifest = make_speech(tmp_path, 3)
    (tmp_path / "c1.wav").write_bytes(b"RIFF")
    run, _ = label(server, manifest, tmp_path / "d.db")
    assert run.added == 4
    assert {question.clip.name for question, _ in run.missing} == {"c1.wav"}
    assert "cannot be decoded" in run.missing[0][1]


SENTINEL = "sk-sentinel-0123456789"


def test_the_key_shows_nowhere(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    caplog.set_level(logging.DEBUG)
    with LlmServer() as server, pytest.raises(ServiceError) as refused:  # the server repeats it in its 401
        label(server, manifest, tmp_path / "d.db")
    with LlmServer(key=SENTINEL, script=["500", "cut"] * 3) as server:
        # A model that was given the key, or a proxy that adds it, answers with it.
        server.answer = lambda _, labels: dict.fromkeys(labels, 0.25) | {SENTINEL: 0.05}
        run, _ = label(server, manifest, tmp_path / "d.db", draws=1)
        assert run.invalid > 0
    shown = "".join(traceback.format_exception(refused.value)) + caplog.text + repr(run)
    assert "incorrect key ***" in shown
    assert SENTINEL not in shown
    for file in tmp_path.rglob("*"):
        assert SENTINEL.encode() not in file.read_bytes()


def test_addresses_with_passwords_are_refused() -> None:
    with pytest.raises(MifuseError, match="--base-url holds a password") as error:
        OpenAITeacher(OpenAIConfig("m", "https://me:secret@host/v1"))
    assert "secret" not in str(error.value)
    with pytest.raises(MifuseError, match="expected an address like"):
        OpenAITeacher(OpenAIConfig("m", "localhost:8000"))


def test_labels_are_all_of_ours() -> None:
    assert set(OpenAITeacher(OpenAIConfig("m", "http://127.0.0.1:9")).prompts.get(0).labels) == set(LABELS)
