"""`mifuse-runtime serve`: HTTP and WebSocket for programs in other languages, with aiohttp.

    GET  /info                      labels, sample rate, version
    POST /predict                   an audio file, alone or as a form's (`curl -F file=@a.wav`);
                                    raw samples with ?rate=16000&channels=1&encoding=int16;
                                    ?channel=left|right|0|1|each; longer than the window: a timeline
    GET  /stream?rate=16000&hop=0.5 WebSocket: raw samples as binary messages in, a prediction as JSON out;
                                    ?channels=2&channel=each: one for each channel, which it names

Everything is answered in JSON, errors as {"error": "one line"}. Who may ask: programs of this machine; with a
token, who sends `Authorization: Bearer TOKEN` (or the WebSocket subprotocols "mifuse" and the token).
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import io
import ipaddress
import logging
import os
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mifuse_runtime import __version__
from mifuse_runtime.codings import pcm
from mifuse_runtime.command.cores import usable_cores
from mifuse_runtime.command.forms import file_of
from mifuse_runtime.command.loading import recognizer_of
from mifuse_runtime.command.output import say
from mifuse_runtime.command.recordings import EACH, Limits, Raw, as_dict, chosen, recordings
from mifuse_runtime.decision import Prediction
from mifuse_runtime.errors import AudioError, MifuseError
from mifuse_runtime.files import is_file
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
SMALL = 1 << 20  # bytes: of larger files one is worked on at a time
RAW = {"rate", "channels", "encoding"}  # of a request: its body is raw samples, if it begins as no file
BODIES = 4  # times the largest body: what all requests together may hold
ACCEPTED = 0.5  # s, until a new connection is in the runner's list
RETRY = {"Retry-After": "1"}  # s, said with 503


def serve(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    token = _token(arguments.token_file)
    if not token and not _loopback(arguments.host):
        raise MifuseError(f"--host {arguments.host} is open to other machines: set {TOKEN} or --token-file")
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        raise MifuseError("serve needs aiohttp: pip install 'mifuse-runtime[serve]'") from error
    recognizer = recognizer_of(arguments)
    asyncio.run(Server(recognizer, arguments, token).run())
    return 0


class Server:
    """One recogniser for all connections; the graph runs in threads, a stream in one at a time.

    Streams, files and large files have threads of their own, so that none of them waits behind all others:
    a connection has one piece of work at a time, and the system divides the processor among the threads.
    """

    def __init__(self, recognizer: Recognizer, limits: argparse.Namespace, token: str | None) -> None:
        self._recognizer, self._limits, self._token = recognizer, limits, token
        cores = usable_cores()
        self._streams, self._large = ThreadPoolExecutor(cores), ThreadPoolExecutor(1)
        # Each thread that runs a graph keeps 2 to 3 MB for itself: 16 of them took 130 MB, 4 take 98.
        self._files = ThreadPoolExecutor(2 * cores)
        self._held = 0  # bytes of bodies
        self._silent: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}  # have asked for nothing yet

    async def run(self) -> None:
        """Listen, say where, and answer until cancelled."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard])
        app.add_routes(
            [
                web.get("/info", self._info),
                web.post("/predict", self._predict),
                web.get("/stream", self._stream),
            ]
        )
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=2.0,
            keepalive_timeout=self._limits.idle_seconds,
            auto_decompress=False,  # 30 kB can become 30 MB, before anybody looks
        )
        await runner.setup()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_complain)
        logging.getLogger("aiohttp.server").addFilter(_is_ours)
        warnings.filterwarnings("ignore", module="aiohttp")  # they print what a client wrote as it wrote it
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
            for pool in (self._streams, self._files, self._large):
                pool.shutdown(cancel_futures=True)

    def _connection(self, runner: web.AppRunner) -> asyncio.BaseProtocol:
        """The protocol of a new connection, which is cut if it asks for nothing."""
        assert runner.server is not None
        loop = asyncio.get_running_loop()
        # One turn of the loop accepts many connections before the first of them is in the runner's list; what
        # is not in it a second later has gone.
        for gone in set(self._silent).difference(runner.server.connections):
            if loop.time() > self._silent[gone].when() - self._limits.idle_seconds + ACCEPTED:
                self._silent.pop(gone).cancel()
        if len({*runner.server.connections, *self._silent}) >= self._limits.max_connections:
            return _Full()
        protocol = runner.server()

        def cut() -> None:
            del self._silent[protocol]
            protocol.force_close()

        self._silent[protocol] = loop.call_later(self._limits.idle_seconds, cut)
        return protocol

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        from aiohttp import web

        timer = self._silent.pop(request.protocol, None)
        if timer:
            timer.cancel()
        try:
            refused = self._refusal(request.headers, request.host)
            if refused:
                return web.json_response({"error": refused}, status=403)
            return await handler(request)
        except web.HTTPException as error:
            headers = RETRY if error.status == 503 else None
            return web.json_response({"error": error.reason}, status=error.status, headers=headers)
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
        card = {"labels": self._recognizer.labels, "sample_rate": bundle.sample_rate, "window": bundle.window}
        card |= {"dimensions": bundle.dimensions} if bundle.dimensions else {}
        return web.json_response({**card, "version": __version__})

    async def _predict(self, request: web.Request) -> web.Response:
        from aiohttp import web

        mine: list[int] = []  # bytes of the pieces that are counted for it
        try:
            body = await asyncio.wait_for(self._body(request, mine), self._limits.idle_seconds)
            pool = self._files if len(body) <= SMALL else self._large
            found = await asyncio.get_running_loop().run_in_executor(
                pool, self._recognise, body, request.query
            )
        finally:
            self._held -= sum(mine)
        return web.json_response(found)

    async def _body(self, request: web.Request, held: list[int]) -> bytes:
        """The body, or the file of a form; `held` is what is counted for it.

        Raises:
            web.HTTPException: too large, compressed, no file in the form, or too much at a time.
        """
        from aiohttp import web

        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise web.HTTPUnsupportedMediaType(
                reason="compressed bodies are not taken: send the file as it is"
            )
        read: Callable[[], Awaitable[bytes]] = request.content.readany
        if request.content_type == "multipart/form-data":
            read = await file_of(request)
        most, pieces = self._limits.max_mb << 20, []
        while piece := await read():
            if sum(held) + len(piece) > most:
                raise web.HTTPRequestEntityTooLarge(
                    max_size=most, actual_size=sum(held) + len(piece), reason="Request Entity Too Large"
                )
            if self._held + len(piece) > BODIES * most:
                raise web.HTTPServiceUnavailable(reason="too much audio at a time: try again in a second")
            self._held += len(piece)
            held.append(len(piece))
            pieces.append(bytes(piece))
        return b"".join(pieces)

    def _recognise(self, body: bytes, query: Mapping[str, str]) -> dict[str, Any]:
        channel = query.get("channel", "mix")
        raw = _format(query) if RAW & query.keys() else None
        limits = Limits(longest=CLIP_SECONDS, highest=RATE)
        found = recordings(self._recognizer, io.BytesIO(body), channel, raw, limits=limits)
        answers = [as_dict(each, self._recognizer) for each in found]
        return answers[0] if channel != EACH else {"channels": answers}

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        raw, channel = _format(request.query), request.query.get("channel", "mix")
        window = float(request.query.get("window", self._recognizer.bundle.window))
        hop = float(request.query.get("hop", 0.5))
        if not (window <= WINDOW and hop >= HOP):
            raise AudioError(
                f"window {window:g} s, hop {hop:g} s: at most {WINDOW:g} and at least {HOP:g} are served"
            )
        streams = [
            self._recognizer.stream(raw.rate, window, hop, channel=one)
            for one in chosen(channel, raw.channels)
        ]
        # Compressed, a message of 1 MB can become one of 1 GB.
        socket = web.WebSocketResponse(protocols=("mifuse",), max_msg_size=MESSAGE, compress=False)
        await socket.prepare(request)
        try:
            await self._listen(socket, streams, raw)
            await socket.close()
        except ConnectionError:
            pass  # the client is gone
        return socket

    async def _listen(self, socket: web.WebSocketResponse, streams: Sequence[Stream], raw: Raw) -> None:
        """Answer until the client closes, or for too long has sent nothing, or lasts too long."""
        from aiohttp import WSMsgType

        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.max_seconds
        while True:
            idle = loop.time() + self._limits.idle_seconds
            try:
                # One timer for a whole message, and no new one for pings.
                message = await asyncio.wait_for(socket.receive(), min(idle, end) - loop.time())
            except asyncio.TimeoutError:  # not the built-in one in Python 3.10
                idled = idle <= end
                limit = self._limits.idle_seconds if idled else self._limits.max_seconds
                said = f"no audio for {limit} s" if idled else f"a stream may last {limit} s"
                await socket.send_json({"error": said})
                return
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return
            if message.type == WSMsgType.BINARY:
                for answer in await loop.run_in_executor(
                    self._streams, self._fed, streams, message.data, raw
                ):
                    await socket.send_json(answer)
            elif message.data == "reset":
                for stream in streams:
                    stream.reset()
            elif message.data == "close":
                for answer in await loop.run_in_executor(self._streams, _closed, streams):
                    await socket.send_json(answer)
                return
            else:
                await socket.send_json({"error": "a text message is reset or close; samples are binary"})

    def _fed(self, streams: Sequence[Stream], data: bytes, raw: Raw) -> list[dict[str, Any]]:
        """What a message adds to the streams, one for each channel that is looked at."""
        try:
            if is_file(data[:16]):
                raise AudioError("an audio file, where raw samples are expected: send files to /predict")
            samples = pcm(data, raw.encoding, raw.channels)
            found = self._recognizer.feed_all(streams, [samples] * len(streams))
        except AudioError as error:
            return [{"error": str(error)}]
        return _in_order(streams, found)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a log entry is about more than a client that has gone or sent what is no HTTP."""
    from aiohttp.http import HttpProcessingError

    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (ConnectionError, HttpProcessingError, asyncio.TimeoutError))


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """As asyncio does, but for clients that are gone."""
    if not isinstance(context.get("exception"), (ConnectionError, asyncio.TimeoutError)):
        loop.default_exception_handler(context)


class _Full(asyncio.Protocol):
    """Turns a connection away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        body = b'{"error": "too many connections: try again in a second"}'
        head = f"Retry-After: 1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        kind = b"Content-Type: application/json\r\n"
        transport.write(b"HTTP/1.1 503 Service Unavailable\r\n" + kind + head + body)
        transport.close()


def _closed(streams: Sequence[Stream]) -> list[dict[str, Any]]:
    return _in_order(streams, [stream.close() for stream in streams])


def _in_order(streams: Sequence[Stream], found: Sequence[Sequence[Prediction]]) -> list[dict[str, Any]]:
    """The predictions of each stream by time, with the channel where one was chosen."""
    answers = [
        asdict(answer) | ({} if stream.channel == "mix" else {"channel": stream.channel})
        for stream, answers in zip(streams, found, strict=True)
        for answer in answers
    ]
    return sorted(answers, key=lambda answer: float(answer["end"]))


def _format(query: Mapping[str, str]) -> Raw:
    """The form of raw samples."""
    try:
        rate, channels = int(query.get("rate", 16_000)), int(query.get("channels", 1))
    except ValueError as error:
        raise AudioError(f"rate and channels are whole numbers ({error})") from error
    if rate > RATE:
        raise AudioError(f"sample rate is {rate}: up to {RATE} Hz is served")
    return Raw(rate, channels, query.get("encoding", "int16"))


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
