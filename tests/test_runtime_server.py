"""`mifuse-runtime serve`: a real server in another process, answers as in Python, limits that hold."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import mifuse_runtime
from mifuse_runtime import Recognizer
from mifuse_runtime.__main__ import main
from tests.bundles import RATE, make_bundle, speech, tone

aiohttp = pytest.importorskip("aiohttp")
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("server") / "bundle")


@contextlib.contextmanager
def running(bundle: Path, *options: str, token: str = "") -> Iterator[str]:
    """A server's address."""
    command = [sys.executable, "-m", "mifuse_runtime", "serve", str(bundle), "--port", "0", *options]
    root = Path(mifuse_runtime.__file__).parents[1]
    environment = {**os.environ, "MIFUSE_RUNTIME_TOKEN": token}
    server = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), server.communicate()
        yield address
        server.send_signal(signal.SIGINT)
        _, complaints = server.communicate(timeout=10)
        assert (server.returncode, complaints) == (130, "")
    finally:
        server.kill()
        server.communicate()


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    with running(bundle) as url:
        yield url


@pytest.fixture(scope="module")
def strict(bundle: Path) -> Iterator[str]:
    limits = ("--max-connections", "3", "--max-mb", "1", "--idle-seconds", "1", "--max-seconds", "2")
    with running(bundle, *limits, token=TOKEN) as url:
        yield url


def ask(url: str, work: Callable[[aiohttp.ClientSession], Awaitable[object]]) -> object:
    async def go() -> object:
        async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(20)) as session:
            return await work(session)

    return asyncio.run(go())


def get(url: str, path: str = "/info", **headers: str) -> tuple[int, dict[str, object]]:
    async def work(session: aiohttp.ClientSession) -> object:
        async with session.get(path, headers=headers) as answer:
            return answer.status, await answer.json()

    return ask(url, work)  # type: ignore[return-value]


def post(url: str, body: bytes, path: str = "/predict", **headers: str) -> tuple[int, dict[str, object]]:
    async def work(session: aiohttp.ClientSession) -> object:
        async with session.post(path, data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    return ask(url, work)  # type: ignore[return-value]


def stream(url: str, query: str, messages: list[bytes | str], **options: object) -> list[dict[str, object]]:
    async def work(session: aiohttp.ClientSession) -> object:
        async with session.ws_connect(f"/stream?{query}", **options) as connection:
            for message in messages:
                await (connection.send_bytes if isinstance(message, bytes) else connection.send_str)(message)
            return [answer.json() async for answer in connection]

    return ask(url, work)  # type: ignore[return-value]


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return content.getvalue()


def test_info(address: str) -> None:
    code, card = get(address)
    assert code == 200
    assert card == {
        "labels": ["angry", "happy", "neutral", "sad"],
        "sample_rate": RATE,
        "window": 3.0,
        "version": mifuse_runtime.__version__,
    }


def test_predict(address: str, bundle: Path) -> None:
    samples = tone(1, rate=48_000)
    wanted = Recognizer.load(bundle).predict(samples, 48_000)
    raw = np.repeat(samples[:, None], 2, axis=1).astype("<f4").tobytes()
    for code, found in (
        post(address, wav(samples, 48_000)),
        post(address, raw, "/predict?rate=48000&channels=2&encoding=float32"),
    ):
        assert code == 200
        assert found["label"] == wanted.label
        assert found["scores"] == pytest.approx(dict(wanted.scores), abs=1e-3)


@pytest.mark.parametrize(
    ("body", "query", "word"),
    [
        (b"", "", "empty"),
        (b"hello, no audio", "", "not a"),
        (b"RIFF\0\0\0\0WAVEfmt ", "", "cut short"),
        (bytes(3), "?rate=16000", "whole frames"),
        (bytes(4), "?rate=16000&channels=0", "0 channels"),
        (bytes(4), "?rate=x", "whole numbers"),
        (bytes(4), "?rate=7", "sample rate is 7"),
        (bytes(4), "?rate=767999", "up to 192000 Hz"),
        (bytes(4), "?rate=16000&encoding=mp3", "mp3"),
        (bytes(2 * 301 * 1000), "?rate=1000", "longer than 300 s"),
    ],
)
def test_audio_that_cannot_be_used(address: str, body: bytes, query: str, word: str) -> None:
    code, answer = post(address, body, f"/predict{query}")
    assert code == 400
    assert word in str(answer["error"])
    assert "\n" not in str(answer["error"])


def test_unknown_address(address: str) -> None:
    assert get(address, "/etc/passwd")[0] == 404
    assert get(address, "/predict")[0] == 405


def test_stream(address: str, bundle: Path) -> None:
    samples = (speech(4, 8000) * 32767).astype("<i2")
    with Recognizer.load(bundle).stream(8000, 1.0, 0.25) as local:
        wanted = local.feed(samples) + local.close()
    chunks = [part.tobytes() for part in np.array_split(samples, 33)]
    found = stream(address, "rate=8000&window=1&hop=0.25", [chunks[0], "reset", *chunks, "close"])
    assert [(row["state"], row["end"]) for row in found] == [(p.state, p.end) for p in wanted]
    for row, prediction in zip(found, wanted, strict=True):
        assert row["scores"] == pytest.approx(dict(prediction.scores), abs=1e-5)


def test_text_that_a_stream_does_not_know(address: str) -> None:
    assert "reset or close" in stream(address, "rate=8000", ["Reset", "close"])[0]["error"]


def test_channels(address: str, bundle: Path) -> None:
    recognizer, rate = Recognizer.load(bundle), 8000
    sides = [(speech(2, rate, pitch) * 32767).astype(np.int16) for pitch in (150.0, 210.0)]
    both = np.stack(sides, axis=1)
    raw, form = both.astype("<i2").tobytes(), f"rate={rate}&channels=2"
    alone = [recognizer.stream(rate, 1.0, 0.25).feed(side) for side in sides]
    wanted = sorted(({**vars(p), "channel": n} for n in (0, 1) for p in alone[n]), key=lambda p: p["end"])
    cuts = [raw[at : at + 3200] for at in range(0, len(raw), 3200)]
    found = stream(address, f"{form}&window=1&hop=0.25&channel=each", [*cuts, "reset", *cuts, "close"])
    found, last = found[: len(wanted)], found[-2:]
    assert [(p["channel"], p["end"], p["state"]) for p in found] == [
        (p["channel"], p["end"], p["state"]) for p in wanted
    ]
    assert [p["channel"] for p in last] == [0, 1]
    for one, other in zip(found, wanted, strict=True):
        assert list(one["scores"].values()) == pytest.approx(list(other["scores"].values()), abs=1e-5)
    found = stream(address, f"{form}&window=1&hop=0.25&channel=right", [raw, "close"])
    assert [(p["channel"], p["state"]) for p in found[:-1]] == [("right", p.state) for p in alone[1]]
    for query in (f"{form}&channel=2", f"{form}&channel=both", "channel=right"):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
            stream(address, query, [])
    code, answer = post(address, raw, f"/predict?{form}&channel=each")
    assert code == 200 and [one["channel"] for one in answer["channels"]] == [0, 1]
    assert post(address, raw, f"/predict?{form}&channel=1")[1] == answer["channels"][1]
    assert post(address, raw, f"/predict?{form}&channel=2")[0] == 400
    code, answer = post(address, np.tile(both, (3, 1)).astype("<i2").tobytes(), f"/predict?{form}")
    assert code == 200 and answer["segments"], "raw samples that are longer than the window: a timeline"


def test_stream_goes_on_after_a_bad_message(address: str) -> None:
    good = (tone(1) * 32767).astype("<i2").tobytes()
    found = stream(address, "window=1", [b"\0", good, "close"])
    assert "whole frames" in str(found[0]["error"])
    assert found[1]["end"] == 1


def test_stream_limits(address: str, strict: str) -> None:
    for query in ("window=60", "hop=0.01", "hop=nan", "window=x", "rate=1"):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
            stream(address, query, [])
    begin = time.monotonic()
    (answer,) = stream(strict, "", [], headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer == {"error": "no audio for 1 s"}
    assert time.monotonic() - begin < 5


def test_only_with_the_token(strict: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {TOKEN}x"}):
        code, answer = get(strict, **headers)
        assert (code, answer) == (403, {"error": "the token is missing or wrong"})
    assert get(strict, Authorization=f"Bearer {TOKEN}")[0] == 200
    found = stream(
        strict, "window=1", [tone(1).astype("<f4").tobytes(), "close"], protocols=("mifuse", TOKEN)
    )
    assert found
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        stream(strict, "", [], protocols=("mifuse", "wrong"))


def test_pages_of_others_are_refused(address: str) -> None:
    own = address.removeprefix("http://")
    assert get(address, Origin=f"http://{own}")[0] == 200
    assert get(address, Origin="https://evil.example")[0] == 403
    assert get(address, Origin="null")[0] == 403
    assert get(address, Origin="http://[::1")[0] == 400
    assert get(address, Host="evil.example:8077", Origin="http://evil.example:8077")[0] == 403


def test_size_and_time_are_limited(strict: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert post(strict, bytes(2 << 20), **headers)[0] == 413

    async def slowly() -> object:
        yield b"RIFF"
        await asyncio.sleep(5)

    async def work(session: aiohttp.ClientSession) -> object:
        async with session.post("/predict", data=slowly(), headers=headers) as answer:
            return answer.status

    begin = time.monotonic()
    assert ask(strict, work) == 408
    assert time.monotonic() - begin < 4


def test_connections_are_limited_and_idle_ones_cut(strict: str) -> None:
    host, port = strict.removeprefix("http://").split(":")
    time.sleep(0.3)  # those of other tests are closing
    begin = time.monotonic()
    connections = [socket.create_connection((host, int(port)), timeout=10) for _ in range(7)]
    answers = [connection.recv(100) for connection in connections]  # none ever asks for anything
    for connection in connections:
        connection.close()
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
    assert len(refused) >= 4
    assert 1 <= answers.count(b"") == 7 - len(refused)
    assert time.monotonic() - begin < 5
    assert get(strict, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_open_to_others_only_with_a_good_token(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIFUSE_RUNTIME_TOKEN", raising=False)
    assert main(["serve", str(bundle), "--host", "0.0.0.0"]) == 1
    assert "set MIFUSE_RUNTIME_TOKEN or --token-file" in capsys.readouterr().err
    (tmp_path / "token").write_text("short\n")
    assert main(["serve", str(bundle), "--token-file", str(tmp_path / "token")]) == 1
    assert "the token has 5 characters: use 16" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert main(["serve", str(bundle)]) == 1
    assert "pip install 'mifuse-runtime[serve]'" in capsys.readouterr().err


def test_port_in_use(bundle: Path, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(bundle), "--port", address.rpartition(":")[2]]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_client_that_vanishes(address: str) -> None:
    async def work(session: aiohttp.ClientSession) -> object:
        connection = await session.ws_connect("/stream?window=0.1&hop=0.1")
        for _ in range(20):
            await connection.send_bytes(bytes(32_000))
        connection._response.connection.transport.abort()
        return None

    ask(address, work)
    assert get(address)[0] == 200  # and the fixture sees that nothing was complained of
