"""Services that lie, stall, flood and point elsewhere: one clear line, and the budget holds."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from draws_files import make_speech

from mifuse.cli import main
from mifuse.clips.labels import LABELS
from mifuse.teachers import pacing
from mifuse.teachers import session as run_module
from mifuse.teachers.openai import OpenAIConfig, OpenAITeacher
from mifuse.teachers.service import retry_after
from mifuse.teachers.store.database import DrawsStore

KEY = "sk-hostile-0123456789"
ANSWER = json.dumps(dict.fromkeys(LABELS, 1 / len(LABELS)))


def completion(count: int, **more: object) -> dict[str, Any]:
    message = {"role": "assistant", "content": ANSWER}
    choices = [{"index": i, "finish_reason": "stop", "message": message} for i in range(count)]
    return {"choices": choices, **more}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    handle_request: Callable[[Handler, dict[str, Any]], None]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            type(self).handle_request(self, json.loads(body or b"{}"))
        except ConnectionError:
            self.close_connection = True

    def reply(self, status: int, body: object, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content_Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def service(handle: Callable[[Handler, dict[str, Any]], None]) -> Iterator[str]:
    """Its address."""
    made = type("Made", (Handler,), {"handle_request": handle})
    server = ThreadingHTTPServer(("127.0.0.1", 0), made)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asks has gone
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(pacing, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(run_module, "LONGEST_WAIT", 0.05)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_speech(tmp_path_factory.mktemp("speech"), 4).path


def label(manifest: Path, address: str, store: Path, *more: object) -> Result:
    call = ["label", manifest, "--teacher", "openai", "--model", "m", "--store", store, "--yes"]
    call += ["--price", "100,100,100", "--base-url", address, *more]
    done = CliRunner().invoke(main, [*map(str, call)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert KEY not in done.output and "Traceback" not in done.output
    return done


def count(store: Path, query: str) -> float:
    db = sqlite3.connect(store)
    try:
        return float(db.execute(query).fetchone()[0])
    finally:
        db.close()


LIES: list[Any] = [
    {"prompt_tokens": 0, "completion_tokens": -1_000_000},
    {"prompt_tokens": -(10**9), "completion_tokens": 5},
    {"prompt_tokens": 10**400, "completion_tokens": 1},
    {"prompt_tokens": 1e300, "completion_tokens": 1},
    {"prompt_tokens": True, "completion_tokens": 1},
    {"prompt_tokens": "12", "completion_tokens": "12"},
    {"prompt_tokens": 10, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": -(10**9)}},
    {"prompt_tokens": 10, "completion_tokens": 10, "prompt_tokens_details": {"audio_tokens": 10**9}},
    {"prompt_tokens": 10, "completion_tokens": 10, "prompt_tokens_details": [1]},
    {"prompt_tokens": [], "completion_tokens": {}},
    {"prompt_tokens": 1, "completion_tokens": False},
    {"prompt_tokens": 1, "completion_tokens": ""},
    {"prompt_tokens": 1, "completion_tokens": 0.0},
    {"prompt_tokens": 1},
    {"completion_tokens": 1},
    {"prompt_tokens": None, "completion_tokens": 1},
    {"prompt_tokens": {"value": 1}, "completion_tokens": [1]},
    {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"audio_tokens": "0"}},
    [1],
    "many",
    None,
    {},
]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_the_budget_holds_whatever_is_counted(manifest: Path, tmp_path: Path, lie: object) -> None:
    bought: list[int] = []

    def handle(handler: Handler, request: dict[str, Any]) -> None:
        bought.append(request.get("n", 1))
        handler.reply(200, completion(bought[-1], usage=lie))

    store, budget = tmp_path / "d.db", 0.5
    with service(handle) as address:
        label(manifest, address, store, "--draws", 8, "--budget-usd", budget)
        teacher = OpenAITeacher(OpenAIConfig("m", address))
        clip = make_speech(tmp_path, 1).clips[0]
        most = 100e-6 * sum(teacher.most_usage(clip, 4).values())
    spent = count(store, "SELECT total(usd) FROM spending")
    assert 0 <= spent <= budget and count(store, "SELECT min(usd) FROM spending") >= 0
    honest = isinstance(lie, dict) and lie.get("prompt_tokens_details") == [1]
    assert honest or len(bought) <= budget / most + 1, "each request is booked at the most that it can cost"


def test_odd_counts_are_said_once(manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def handle(handler: Handler, request: dict[str, Any]) -> None:
        handler.reply(
            200, completion(request.get("n", 1), usage={"prompt_tokens": 5, "completion_tokens": -7})
        )

    with service(handle) as address:
        assert label(manifest, address, tmp_path / "d.db", "--draws", 2).exit_code == 0
    (said,) = [record.message for record in caplog.records if "counts of a reply" in record.message]
    assert "output is -7" in said and "$" in said


MALFORMED = [
    b'{"choices":[null]}',
    b'{"choices":[{"message":null,"finish_reason":"content_filter"}]}',
    b'{"choices":"abc"}',
    b'{"choices":[],"usage":{"prompt_tokens":"12"}}',
    b'{"choices":[],"usage":[1]}',
    b'{"choices":[],"usage":{"prompt_tokens":' + b"9" * 5000 + b"}}",
    b'{"choices":[{"error":null}],"created":' + b"9" * 5000 + b"}",
    b'{"choices":[{"message":{"content":["a"]}}]}',
    b'{"choices":[{"message":{"content":"\\ud800"},"finish_reason":7}],"id":{}}',
    b'{"choices":[{"message":{"content":"{\\"angry\\": ' + b"9" * 5000 + b'}"}}]}',
    b"[" * 200_000,
    b"[]",
    b"null",
    b"7",
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: str(body[:60]))
def test_any_json_is_an_invalid_answer_of_its_clip(manifest: Path, tmp_path: Path, body: bytes) -> None:
    first: list[str] = []

    def handle(handler: Handler, request: dict[str, Any]) -> None:
        audio = request["messages"][1]["content"][1]["input_audio"]["data"]
        first.append(audio)
        good = completion(1, usage={"prompt_tokens": 10, "completion_tokens": 10})
        handler.reply(200, body if audio == first[0] else good)

    store = tmp_path / "d.db"
    with service(handle) as address:
        done = label(manifest, address, store, "--draws", 1)
    assert done.exit_code == 1 and "1 draws of 1 clips could not be had" in done.output
    assert count(store, "SELECT count(*) FROM draws") == 3
    assert count(store, "SELECT count(*) FROM invalid") == run_module.MAX_ATTEMPTS
    assert count(store, "SELECT total(price_usd) FROM invalid") > 0, "it is paid"


PAGE = b"<html><head><title>Log in</title><script>x()</script></head><body>Hotel\x1b[2J Wi-Fi</body></html>"
OUTAGES: list[tuple[object, str]] = [
    (
        {"error": {"code": 502, "message": "upstream provider is overloaded"}, "user_id": "nobody"},
        "is overloaded",
    ),
    ({"error": "too busy"}, "too busy"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "Overloaded"),
    ({"choices": [{"finish_reason": "error", "error": {"message": "node is gone"}}]}, "node is gone"),
    (PAGE, r"Log in Hotel\u001b[2J Wi-Fi"),
    (b"  <!DOCTYPE html><p>maintenance", "maintenance"),
    (b"\xef\xbb\xbf<html>proxy", "proxy"),
    (b"upstream connect error", "upstream connect error"),
    ({"object": "error", "message": "engine is down", "type": "Internal", "code": 500}, "engine is down"),
    ({"errors": [{"message": "no node"}]}, "no node"),
    ({"detail": "Not ready yet"}, "Not ready yet"),
    ({"message": "Internal Server Error"}, "Internal Server Error"),
    ({"status": "error", "reason": "out of memory"}, "out of memory"),
]


@pytest.mark.parametrize(("body", "words"), OUTAGES, ids=lambda case: str(case)[:40])
def test_an_error_sent_as_a_success_is_an_outage(
    manifest: Path, tmp_path: Path, body: object, words: str
) -> None:
    out = [True]

    def handle(handler: Handler, request: dict[str, Any]) -> None:
        handler.reply(
            200,
            body
            if out[0]
            else completion(request.get("n", 1), usage={"prompt_tokens": 5, "completion_tokens": 9}),
        )

    store = tmp_path / "d.db"
    with service(handle) as address:
        stopped = label(manifest, address, store, "--draws", 4)
        assert stopped.exit_code == 1 and words in stopped.output
        assert count(store, "SELECT count(*) FROM invalid") == 0, "no attempts are used up"
        assert count(store, "SELECT total(usd) FROM spending") == 0
        assert count(store, "SELECT count(*) FROM reservations") == 0
        out[0] = False
        assert label(manifest, address, store, "--draws", 4).exit_code == 0
    assert count(store, "SELECT count(*) FROM draws") == 16


def test_a_reply_has_a_time_and_a_size(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "TRIES", 1)
    sent = [0]

    def drip(handler: Handler, _: object) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    def flood(handler: Handler, _: object) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * (1 << 20))
            sent[0] += 1 << 20

    for handle, seconds, words in (
        (drip, 0.5, "did not answer within 0.5 s"),
        (flood, 50, "sent more than 16 MB for an answer"),  # however busy the machine is
    ):
        begun = time.monotonic()
        with service(handle) as address:
            more = ("--draws", 1, "--timeout", seconds, "--concurrency", 4)
            done = label(manifest, address, tmp_path / f"{handle.__name__}.db", *more)
        assert done.exit_code == 1 and words in done.output
        assert time.monotonic() - begun < 60
    assert sent[0] < 4 * (64 << 20)


def test_compressed_replies_are_not_unpacked(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    monkeypatch.setattr(run_module, "TRIES", 1)
    asked: list[str | None] = []

    def bomb(handler: Handler, _: object) -> None:
        asked.append(handler.headers["Accept-Encoding"])
        handler.reply(200, gzip.compress(b"[" * (1 << 20)), Content_Encoding="gzip")

    with service(bomb) as address:
        done = label(manifest, address, tmp_path / "d.db", "--draws", 1)
    assert set(asked) == {"identity"} and "sent a compressed reply" in done.output


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wait", ["1e9", "inf", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_nobody_waits_for_years(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, wait: str
) -> None:
    with service(lambda handler, _: handler.reply(status, {}, Retry_After=wait)) as address:
        done = label(manifest, address, tmp_path / "d.db", "--draws", 1, "--concurrency", 1)
    assert done.exit_code == 1 and "it asks to wait for" in done.output
    assert "trying again in" in caplog.text
    assert count(tmp_path / "d.db", "SELECT count(*) FROM reservations") == 0


@pytest.mark.parametrize("text", ["", "nan", "-5", "soon", "Fri, 99 Foo 9999", "1e400", "\u0661"])
def test_odd_waits(text: str) -> None:
    wait = retry_after({"retry-after": text})
    assert wait is None or wait >= 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_goes_where_a_redirect_points(manifest: Path, tmp_path: Path, status: int) -> None:
    seen: list[str] = []

    def other(handler: Handler, request: dict[str, Any]) -> None:
        seen.append(handler.command)
        handler.reply(200, completion(request.get("n", 1)))

    with service(other) as second:
        target = second.replace("127.0.0.1", "localhost") + "/chat/completions"
        with service(lambda handler, _: handler.reply(status, b"", Location=target)) as address:
            done = label(manifest, address, tmp_path / "d.db", "--draws", 1)
    assert not seen
    assert done.exit_code == 1 and f"answered {status} and points to localhost" in done.output
    assert count(tmp_path / "d.db", "SELECT total(usd) FROM reservations") == 0


def test_a_key_over_plain_http(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ["label", str(manifest), "--teacher", "openai", "--model", "m", "--price", "1,1"]
    call += ["--store", str(tmp_path / "d.db"), "--timeout", "0.5", "--draws", "1"]
    host = "mifuse.invalid"
    done = CliRunner().invoke(main, [*call, "--base-url", f"http://{host}/v1"])
    assert done.exit_code == 2 and f"go to {host} over plain http" in done.output and "--yes" in done.output
    with DrawsStore(tmp_path / "d.db") as store:
        assert not store.may_send_to(host)
    monkeypatch.setattr(run_module, "FIRST_TRIES", 1)
    done = CliRunner().invoke(main, [*call, "--base-url", f"http://{host}/v1", "--yes"])
    assert done.exit_code == 1 and "over plain http" in done.output and "cannot be reached" in done.output
    done = CliRunner().invoke(main, [*call, "--base-url", f"http://{host}/v1"])
    assert "over plain http" not in done.output, "once"
    with service(lambda handler, request: handler.reply(200, completion(request.get("n", 1)))) as address:
        assert "plain http" not in label(manifest, address, tmp_path / "here.db", "--draws", 1).output
