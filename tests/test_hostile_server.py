"""Clients of `serve` that want more than their share: refused in one line, and others do not notice."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import make_bundle, speech
from tests.test_runtime_server import get, post, running, wav

aiohttp = pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("server") / "bundle")


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    """The server must have complained of nothing when it ends."""
    with running(bundle, "--idle-seconds", "2", "--max-seconds", "4", "--max-mb", "2") as url:
        yield url


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def ask(address: str, path: str, body: bytes, head: str = "") -> tuple[bytes, bytes]:
    """Status line and the rest of what a raw request brings."""
    with connect(address) as raw:
        first = f"POST {path} HTTP/1.1\r\nHost: {address.removeprefix('http://')}\r\nConnection: close\r\n"
        raw.sendall(f"{first}{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        got = b""
        while part := raw.recv(65536):
            got += part
    status, _, rest = got.partition(b"\r\n")
    return status, rest


def odd_wav(rate: int, seconds: float = 0.5) -> bytes:
    """A file of 16 kB whose header claims any rate."""
    samples = struct.pack("<h", 1) * int(seconds * 16_000)
    head = struct.pack("<HHIIHH", 1, 1, rate, 0, 2, 16)
    return (
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + head + b"data" + struct.pack("<I", len(samples)) + samples
    )


@pytest.mark.parametrize("rate", [192_001, 767_001, 4_000_000_000])
def test_rates_in_files_have_the_same_limit(address: str, rate: int) -> None:
    begin = time.monotonic()
    code, answer = post(address, odd_wav(rate))
    assert code == 400 and f"sample rate is {rate}: up to 192000 Hz is served" in str(answer["error"])
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("encoding", ["deflate", "gzip", "br", "zstd", "x"])
def test_compressed_bodies_are_not_unpacked(address: str, encoding: str) -> None:
    pump = zlib.compressobj(9)
    bomb = b"".join(pump.compress(bytes(1 << 20)) for _ in range(50)) + pump.flush()
    status, rest = ask(address, "/predict?rate=16000", bomb, f"Content-Encoding: {encoding}\r\n")
    assert b" 415 " in status and b"send the file as it is" in rest


def form(content: bytes, name: str = "file", filename: str = ' ; filename="a.wav"', fields: int = 0) -> bytes:
    parts = [b'Content-Disposition: form-data; name="x"\r\n\r\n1'] * fields
    head = f'Content-Disposition: form-data; name="{name}"{filename}\r\nContent-Type: audio/wav\r\n\r\n'
    parts.append(head.encode() + content)
    return b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + b"--XX--\r\n"


def test_forms(address: str) -> None:
    samples = speech(1.0)
    wanted = post(address, wav(samples))[1]
    for body in (form(wav(samples)), form(wav(samples), "a", fields=3), form(wav(samples), filename="")):
        status, rest = ask(address, "/predict", body, "Content-Type: multipart/form-data; boundary=XX\r\n")
        assert b" 200 " in status and json.loads(rest.partition(b"\r\n\r\n")[2]) == wanted
    for body, code in (
        (form(wav(samples), "other", ""), b" 400 "),
        (form(wav(samples), fields=30), b" 400 "),
        (form(bytes(3 << 20)), b" 413 "),
        (b"no form", b" 400 "),
        (b"--XX\r\n\r\n\r\n--XX--", b" 400 "),
        (form(wav(samples))[:200], b" 400 "),
    ):
        status, rest = ask(address, "/predict", body, "Content-Type: multipart/form-data; boundary=XX\r\n")
        assert code in status and b'{"error": "' in rest, (status, rest)
    status, _ = ask(address, "/predict", b"x", "Content-Type: multipart/form-data\r\n")
    assert b" 400 " in status


def test_no_form_is_an_error_of_the_server(address: str) -> None:
    whole = form(wav(speech(0.2)), fields=1)
    head = whole.index(b"RIFF")
    rest = (
        b"Content-Encoding: br\r\n",
        b"Content-Transfer-Encoding: z\r\n",
        b"Content-Length: -1\r\n",
        b"\x00",
        b'"',
    )
    bodies = [whole[:at] for at in range(0, head + 20, 7)] + [whole[at:] for at in range(1, head, 7)]
    bodies += [whole[:at] + part + whole[at:] for part in rest for at in range(4, head, 29)]
    for body in bodies:
        status, _ = ask(address, "/predict", body, "Content-Type: multipart/form-data; boundary=XX\r\n")
        assert b" 400 " in status or b" 200 " in status, (status, body[: head + 20])


HANDSHAKE = (
    "GET /stream?rate=16000 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


def test_pings_keep_nothing_open(address: str) -> None:
    with connect(address) as raw:
        raw.sendall(HANDSHAKE.encode())
        head = raw.recv(1000)
        assert b" 101 " in head and b"permessage-deflate" not in head
        begin, got = time.monotonic(), b""
        raw.settimeout(0.2)
        while b"no audio for 2 s" not in got and time.monotonic() - begin < 20:
            raw.sendall(b"\x89\x81\0\0\0\0x")
            try:
                got += raw.recv(1000)
            except TimeoutError:
                continue
        assert time.monotonic() - begin < 10


def test_clients_that_go_at_any_moment(address: str) -> None:
    """The fixture sees that nothing was printed."""
    body = wav(speech(3.0))
    whole = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for end in (5, 40, 200, len(whole) // 2, len(whole)):
        for reset in (True, False):
            raw = connect(address)
            raw.sendall(whole[:end])
            if reset:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
    for raw_bytes in (
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        with connect(address) as raw:
            raw.sendall(raw_bytes)
            raw.settimeout(5)
            raw.recv(1000)
    time.sleep(0.5)
    assert get(address)[0] == 200


def test_many_files_do_not_keep_another_waiting(bundle: Path) -> None:
    """Eight files of five minutes at an odd rate, a second of work each, and a short one."""
    with running(bundle, "--max-mb", "64") as address:
        body = odd_wav(47_999, 600)
        waiting = [threading.Thread(target=post, args=(address, body)) for _ in range(8)]
        for one in waiting:
            one.start()
        time.sleep(1.0)
        begin = time.monotonic()
        assert post(address, wav(speech(1.0)))[0] == 200
        waited = time.monotonic() - begin
        for one in waiting:
            one.join()
        assert waited < 10, "all eight take longer"


def test_too_many_are_sent_away_and_come_back(bundle: Path) -> None:
    with running(bundle, "--max-connections", "2") as address:
        held = [connect(address) for _ in range(2)]
        time.sleep(0.3)
        with connect(address) as third:
            answer = third.recv(1000)
        assert answer.startswith(b"HTTP/1.1 503") and b"Retry-After: 1" in answer and b'{"error": "' in answer
        for one in held:
            one.close()
        begin = time.monotonic()
        while True:
            try:
                assert get(address)[0] == 200
                break
            except (AssertionError, aiohttp.ClientError):
                assert time.monotonic() - begin < 10
