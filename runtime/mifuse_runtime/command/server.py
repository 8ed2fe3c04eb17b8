"""`mifuse-runtime serve`: HTTP and WebSocket for programs in other languages, with aiohttp.

    GET  /info                      labels, sample rate, version
    POST /predict                   an audio file; raw samples with ?rate=16000&channels=1&encoding=int16
    GET  /stream?rate=16000&hop=0.5 WebSocket: raw samples as binary messages in, a prediction as JSON out

Everything is answered in JSON, errors as {"error": "one line"}. Who may ask: programs of this machine; with a
token, who sends `Authorization: Bearer TOKEN` (or the WebSocket subprotocols "mifuse" and the token).
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import io
import ipaddress
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mifuse_runtime import __version__
from mifuse_runtime.codings import pcm
from mifuse_runtime.command.output import say
from mifuse_runtime.decision import Prediction
from mifuse_runtime.errors import AudioError, MifuseError
from mifuse_runtime.files import read_audio
from mifuse_runtime.recognizer import Recognizer
from mifuse_runtime.stream import Stream

if TYPE_CHECKING:
    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TOKEN = "MIFUSE_RUNTIME_TOKEN"  # noqa: S105, the variable's name
SHORTEST_TOKEN = 16  # characters
CLIP_SECONDS = 300.0  # of audio in one request: bounds the graph's memory, whatever the file is compressed by
WINDOW, HOP = 10.0, 0.1  # seconds: the longest and the shortest that a stream may ask for
RATE = 192_000  # Hz: filters of higher, odd rates take a second and 200 MB to make
MESSAGE = 1 << 20  # bytes of one WebSocket message


def serve(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    token = _token(arguments.token_file)
    if not token and not _loopback(arguments.host):
        raise MifuseError(f"--host {arguments.host} is open to other machines: set {TOKEN} or --token-file")
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        raise MifuseError("serve needs aiohttp: pip install 'mifuse-runtime[serve]'") from error
    recognizer = Recognizer.load(arguments.bundle, arguments.engine, arguments.threads, arguments.precision)
    asyncio.run(Server(recognizer, arguments, token).run())
    return 0


class Server:
    """One recogniser for all connections; the graph runs in threads, a stream in one at a time."""

    def __init__(self, recognizer: Recognizer, limits: argparse.Namespace, token: str | None) -> None:
        self._recognizer, self._limits, self._token = recognizer, limits, token
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._strangers: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}  # have asked for nothing yet

    async def run(self) -> None:
        """Listen, say where, and answer until cancelled."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=self._limits.max_mb << 20)
        app.add_routes(
            [
                web.get("/info", self._info),
                web.post("/predict", self._predict),
                web.get("/stream", self._stream),
            ]
        )
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=2.0, keepalive_timeout=self._limits.idle_seconds
        )
        await runner.setup()
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: self._connection(runner), self._limits.host, self._limits.port
            )
            host, port = server.sockets[0].getsockname()[:2]
            say(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            async with server:
                await server.serve_forever()
        finally:
            await runner.cleanup()
            self._pool.shutdown(cancel_futures=True)

    def _connection(self, runner: web.AppRunner) -> asyncio.BaseProtocol:
        """The protocol of a new connection, which is cut if it asks for nothing."""
        assert runner.server is not None
        # One turn of the loop accepts many connections before the first of them is in the runner's list.
        if len({*runner.server.connections, *self._strangers}) >= self._limits.max_connections:
            return _Full()
        protocol = runner.server()

        def cut() -> None:
            del self._strangers[protocol]
            protocol.force_close()

        loop = asyncio.get_running_loop()
        self._strangers[protocol] = loop.call_later(self._limits.idle_seconds, cut)
        return protocol

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        from aiohttp import web

        stranger = self._strangers.pop(request.protocol, None)
        if stranger:
            stranger.cancel()
        try:
            refused = self._refusal(request.headers, request.host)
            if refused:
                return web.json_response({"error": refused}, status=403)
            return await handler(request)
        except web.HTTPException as error:
            return web.json_response({"error": error.reason}, status=error.status)
        except (MifuseError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        except asyncio.TimeoutError:  # not the built-in one in Python 3.10
            return web.json_response({"error": "the audio came too slowly"}, status=408)

    def _refusal(self, headers: Mapping[str, str], host: str) -> str | None:
        """Why the request must not be answered, or None."""
        origin = headers.get("Origin")
        if origin and urlsplit(origin).netloc != host:
            return "requests of other web pages are refused"
        if self._token is None:
            # A page may point its own name at this machine; it cannot change the Host header.
            return (
                None
                if _loopback(urlsplit(f"//{host}").hostname or "")
                else "ask for localhost, or set a token"
            )
        bearer = headers.get("Authorization", "").removeprefix("Bearer ")
        protocols = headers.get("Sec-WebSocket-Protocol", "").split(",")
        given = bearer or (protocols[1].strip() if len(protocols) == 2 else "")
        return (
            None
            if hmac.compare_digest(given.encode(), self._token.encode())
            else "the token is missing or wrong"
        )

    async def _info(self, request: web.Request) -> web.Response:
        from aiohttp import web

        bundle = self._recognizer.bundle
        card = {"labels": bundle.labels, "sample_rate": bundle.sample_rate, "window": bundle.window}
        return web.json_response({**card, "version": __version__})

    async def _predict(self, request: web.Request) -> web.Response:
        from aiohttp import web

        body = await asyncio.wait_for(request.read(), self._limits.idle_seconds)

        def work() -> Prediction:
            if "rate" not in request.query:
                samples = read_audio(io.BytesIO(body), self._recognizer.sample_rate, CLIP_SECONDS)
                return self._recognizer.predict(samples)
            rate, channels, encoding = _format(request.query)
            raw = pcm(body, encoding, channels)
            if len(raw) > CLIP_SECONDS * rate:
                raise AudioError(f"the audio is longer than {CLIP_SECONDS:g} s: use /stream")
            return self._recognizer.predict(raw, rate)

        found = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        return web.json_response(asdict(found))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import WSMsgType, web

        rate, channels, encoding = _format(request.query)
        window = float(request.query.get("window", self._recognizer.bundle.window))
        hop = float(request.query.get("hop", 0.5))
        if not (window <= WINDOW and hop >= HOP):
            raise AudioError(
                f"window {window:g} s, hop {hop:g} s: at most {WINDOW:g} and at least {HOP:g} are served"
            )
        stream = self._recognizer.stream(rate, window, hop)
        socket = web.WebSocketResponse(
            protocols=("mifuse",), max_msg_size=MESSAGE, receive_timeout=self._limits.idle_seconds
        )
        await socket.prepare(request)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.max_seconds
        try:
            async for message in socket:
                if loop.time() > end:
                    await socket.send_json({"error": f"a stream may last {self._limits.max_seconds} s"})
                    break
                if message.type == WSMsgType.BINARY:
                    work = _work(stream, message.data, encoding, channels)
                    for answer in await loop.run_in_executor(self._pool, work):
                        await socket.send_json(answer)
                elif message.data == "reset":
                    stream.reset()
                elif message.data == "close":
                    for found in await loop.run_in_executor(self._pool, stream.close):
                        await socket.send_json(asdict(found))
                    break
        except asyncio.TimeoutError:  # not the built-in one in Python 3.10
            await socket.send_json({"error": f"no audio for {self._limits.idle_seconds} s"})
        except ConnectionError:
            return socket  # the client is gone
        await socket.close()
        return socket


class _Full(asyncio.Protocol):
    """Turns a connection away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        transport.close()


def _work(stream: Stream, data: bytes, encoding: str, channels: int) -> Callable[[], list[dict[str, object]]]:
    def work() -> list[dict[str, object]]:
        try:
            return [asdict(found) for found in stream.feed(pcm(data, encoding, channels))]
        except AudioError as error:
            return [{"error": str(error)}]

    return work


def _format(query: Mapping[str, str]) -> tuple[int, int, str]:
    """Rate in Hz, channels and encoding of raw samples."""
    try:
        rate, channels = int(query.get("rate", 16_000)), int(query.get("channels", 1))
    except ValueError as error:
        raise AudioError(f"rate and channels are whole numbers ({error})") from error
    if rate > RATE:
        raise AudioError(f"sample rate is {rate}: up to {RATE} Hz is served")
    return rate, channels, query.get("encoding", "int16")


def _token(file: str | None) -> str | None:
    # No option takes it: every user of the machine can read the list of processes.
    token = Path(file).read_text(encoding="utf-8").strip() if file else os.environ.get(TOKEN, "")
    if (file or token) and len(token) < SHORTEST_TOKEN:
        raise MifuseError(f"the token has {len(token)} characters: use {SHORTEST_TOKEN} or more")
    return token or None


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
