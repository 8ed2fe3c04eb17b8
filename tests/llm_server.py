"""A server on loopback that speaks OpenAI's chat completions, Anthropic's messages and its message batches.

It counts what it has sold, has a rate limit, honours idempotency keys, and goes wrong on demand.

    python -m tests.llm_server --latency 0.05 --rate 200      prints its address; GET /stats has the counts
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import dataclasses
import hashlib
import io
import json
import random
import re
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

# Faults are "hang", "cut", "expired", a status in digits, and:
SPOILED = ("refusal", "truncated", "prose", "labels", "negative", "sum", "empty", "two", "nan", "twice")
MIX = ("429", "500", "529", "cut", "refusal", "truncated", "labels", "negative", "sum", "empty")

COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
Answer = Callable[[dict[str, Any], list[str]], dict[str, float]]


def any_answer(body: dict[str, Any], labels: list[str]) -> dict[str, float]:
    """A distribution in steps of 0.05 that depends on everything in the request."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    counts = np.random.default_rng(list(digest)).multinomial(20, np.full(len(labels), 1 / len(labels)))
    return dict(zip(labels, (counts / 20).round(2).tolist(), strict=True))


@dataclasses.dataclass
class LlmServer:
    """`with LlmServer(…) as server:` runs it in a thread; `server.url` is its address."""

    latency: float = 0.0  # s
    rate: float = 0.0  # requests/s, with a second's worth at a time; 0: no limit
    script: list[str] = dataclasses.field(default_factory=list)  # faults of the next requests, "" for none
    mix: float = 0.0  # share of requests with a random fault
    refuses: tuple[str, ...] = ()  # "schema", "n": answered with 400
    ignores_n: bool = False
    headers: bool = True  # say what is left of the rate limit
    key: str = "test-key"
    answer: Answer = any_answer
    retry_after: str = "0.05"  # s, said with 429
    keep: bool = True  # the bodies of requests
    polls: int = 1  # of a batch, before it has ended
    results_at: str = ""  # address that it names for a batch's results; empty: its own

    def __post_init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.sent: Counter[str] = Counter()  # idempotency key -> how often it came
        self.sold: Counter[str] = Counter()  # idempotency key -> how often it was billed
        self.usage: Counter[str] = Counter()  # tokens billed
        self.statuses: Counter[int] = Counter()
        self.batches: dict[str, dict[str, Any]] = {}
        self._replies: dict[str, bytes] = {}
        self._random = random.Random(1)
        self._room, self._at = self.rate, time.monotonic()
        self._open = self.most_open = 0
        self._first = self._last = 0.0  # when something was sold, s

    # Running

    def __enter__(self) -> LlmServer:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 26)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set()
            await self._stop.wait()
            server.close()

        def run() -> None:
            self._loop.run_until_complete(serve())
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0.01))
            self._loop.close()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read(reader):
                self._open += 1
                self.most_open = max(self.most_open, self._open)
                try:
                    going_on = await self._handle(*request, reader, writer)
                finally:
                    self._open -= 1
                if not going_on:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    # One request

    async def _handle(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Whether the connection can be used again."""
        if path == "/stats":
            return await self._respond(writer, 200, self.stats())
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if given != self.key:
            return await self._fail(writer, 401, f"incorrect key {given} in {headers}")
        if "/batches" in path:
            return await self._batch(method, path, body, writer)
        if self.rate and not self._take():
            return await self._fail(writer, 429, "too many requests")
        key = headers.get("idempotency-key", "")
        self.sent[key] += 1
        if key in self._replies:
            return await self._respond(writer, 200, self._replies[key])
        fault = self._fault()
        request = json.loads(body)
        if self.keep:
            self.requests.append(request)
        if fault == "hang":
            await reader.read(1)
            return False
        if fault.isdigit():
            return await self._fail(writer, int(fault), f"scripted {fault}")
        for feature, present in (("schema", "response_format" in request), ("n", request.get("n", 1) > 1)):
            if feature in self.refuses and present:
                return await self._fail(writer, 400, f"{feature} is not supported")
        await asyncio.sleep(self.latency)
        if reader.at_eof() or writer.is_closing():  # the client is gone: nothing is made, nothing billed
            return False
        reply = self.message(request, fault) if path.endswith("/messages") else self.chat(request, fault)
        content = json.dumps(reply).encode()
        self.sold[key] += 1
        self._last = time.monotonic()
        self._first = self._first or self._last
        for kind, count in reply["usage"].items():
            if isinstance(count, int):
                self.usage[kind] += count
        if key:
            self._replies[key] = content
        if fault == "cut":
            writer.write(_head(200, len(content), {}) + content[: len(content) // 2])
            await writer.drain()
            return False
        return await self._respond(writer, 200, content)

    def _fault(self) -> str:
        if self.script:
            return self.script.pop(0)
        return self._random.choice(MIX) if self._random.random() < self.mix else ""

    def _take(self) -> bool:
        now = time.monotonic()
        self._room, self._at = min(self.rate, self._room + self.rate * (now - self._at)), now
        if self._room < 1:
            return False
        self._room -= 1
        return True

    async def _fail(self, writer: asyncio.StreamWriter, status: int, message: str) -> bool:
        error = {"type": "error", "error": {"type": f"error_{status}", "message": message}}
        extra = {"retry-after": self.retry_after} if status in (429, 529) else {}
        return await self._respond(writer, status, error, extra)

    async def _respond(
        self, writer: asyncio.StreamWriter, status: int, content: object, extra: dict[str, str] | None = None
    ) -> bool:
        self.statuses[status] += 1
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = dict(extra or {})
        if self.rate and self.headers:
            lacking = max(0.0, self.rate - self._room)
            headers |= {
                "x-ratelimit-limit-requests": f"{self.rate:.0f}",
                "x-ratelimit-remaining-requests": f"{int(self._room)}",
                "x-ratelimit-reset-requests": f"{1000 * lacking / self.rate:.0f}ms",
            }
        writer.write(_head(status, len(data), headers) + data)
        await writer.drain()
        return True

    def stats(self) -> dict[str, Any]:
        return {
            "requests": sum(self.sent.values()), "keys": len(self.sold), "sold": sum(self.sold.values()),
            "usage": dict(self.usage), "statuses": dict(self.statuses), "most_open": self.most_open,
            "seconds": self._last - self._first,
        }  # fmt: skip

    # The protocols

    def chat(self, request: dict[str, Any], fault: str = "") -> dict[str, Any]:
        count = 1 if self.ignores_n else request.get("n", 1)
        choices = [self._choice(request, index, fault) for index in range(count)]
        seconds = _seconds(request)
        audio, text = int(10 * seconds), 150
        return {
            "id": f"chatcmpl-{sum(self.sold.values())}", "object": "chat.completion", "created": 0,
            "model": request["model"], "choices": choices,
            "usage": {
                "prompt_tokens": audio + text, "completion_tokens": 40 * count,
                "total_tokens": audio + text + 40 * count,
                "prompt_tokens_details": {"audio_tokens": audio, "cached_tokens": 0},
            },
        }  # fmt: skip

    def _choice(self, request: dict[str, Any], index: int, fault: str) -> dict[str, Any]:
        text = self._text({**request, "index": index}, fault)
        finish = {"truncated": "length"}.get(fault, "stop")
        message = {"role": "assistant", "content": text, "refusal": None}
        if fault == "refusal":
            message |= {"content": None, "refusal": "I cannot judge voices"}
        logprobs = None
        if request.get("logprobs"):
            probs = self.answer(request, _labels(request))
            top = [
                {"token": n[:3], "logprob": float(np.log(p)), "bytes": None} for n, p in probs.items() if p
            ]
            logprobs = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
        return {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs}

    def message(self, request: dict[str, Any], fault: str = "") -> dict[str, Any]:
        stop = {"truncated": "max_tokens", "refusal": "refusal"}.get(fault, "end_turn")
        text = "" if fault == "refusal" else self._text(request, fault)
        return {
            "id": f"msg_{sum(self.sold.values())}", "type": "message", "role": "assistant",
            "model": request["model"], "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": stop, "stop_sequence": None,
            "usage": {
                "input_tokens": 900, "output_tokens": 40,
                "cache_creation_input_tokens": 0, "cache_read_input_tokens": 300,
            },
        }  # fmt: skip

    def _text(self, request: dict[str, Any], fault: str) -> str:
        labels = _labels(request)
        probs = self.answer(request, labels)
        first, last = labels[0], labels[-1]
        spoiled = {
            "labels": probs | {"bored": 0.05},
            "negative": probs | {first: -0.5, last: 1.5},
            "sum": dict.fromkeys(labels, 0.9),
        }
        text = json.dumps(spoiled.get(fault, probs))
        return {
            "prose": f"Well, I think:\n```json\n{text}\n```\nHope this helps {{smile}}.",
            "truncated": text[: len(text) // 2],
            "empty": "",
            "two": f"{text} or {text}",
            "nan": text.replace(str(probs[first]), "NaN", 1),
            "twice": text[:-1] + f', "{first}": 0.1}}',
        }.get(fault, text)

    async def _batch(self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        name = path.split("/batches")[1].strip("/").split("?")[0]
        if method == "POST":
            fault = self._fault()
            if fault.isdigit():
                return await self._fail(writer, int(fault), f"scripted {fault}")
            number = len(self.batches)
            now = datetime.now(timezone.utc)
            batch = {
                "id": f"msgbatch_{number}", "type": "message_batch", "processing_status": "in_progress",
                "request_counts": dict.fromkeys(COUNTS, 0),
                "created_at": now.isoformat(), "expires_at": (now + timedelta(days=1)).isoformat(),
                "ended_at": None, "archived_at": None, "cancel_initiated_at": None, "results_url": None,
            }  # fmt: skip
            requests = json.loads(body)["requests"]
            batch["request_counts"]["processing"] = len(requests)
            self.batches[batch["id"]] = {"batch": batch, "requests": requests, "polls": 0}
            if fault == "cut":
                return False
            return await self._respond(writer, 200, batch)
        if not name:
            data = [one["batch"] for one in self.batches.values()][::-1]
            ids = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
            return await self._respond(writer, 200, {"data": data, "has_more": False, **ids})
        found = self.batches[name.removesuffix("/results")]
        if name.endswith("/results"):
            return await self._respond(writer, 200, found["results"])
        found["polls"] += 1
        if found["polls"] > self.polls and "results" not in found:
            found["results"] = b"".join(self._batch_line(request) for request in found["requests"])
            counts = found["batch"]["request_counts"]
            counts |= {"processing": 0, "succeeded": counts["processing"]}
            found["batch"] |= {
                "processing_status": "ended",
                "results_url": f"{self.results_at or self.url}{path}/results",
            }
        return await self._respond(writer, 200, found["batch"])

    def _batch_line(self, request: dict[str, Any]) -> bytes:
        fault = self._fault()
        result: dict[str, Any]
        if fault == "expired":
            result = {"type": "expired"}
        elif fault.isdigit():
            error = {"type": "error", "error": {"type": "api_error", "message": f"scripted {fault}"}}
            result = {"type": "errored", "error": error}
        else:
            result = {"type": "succeeded", "message": self.message(request["params"], fault)}
            self.sold[request["custom_id"]] += 1
            self.usage.update({k: v for k, v in result["message"]["usage"].items() if isinstance(v, int)})
        return json.dumps({"custom_id": request["custom_id"], "result": result}).encode() + b"\n"


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


def _head(status: int, length: int, headers: dict[str, str]) -> bytes:
    rows = {"content-type": "application/json", "content-length": str(length), "x-request-id": "req"}
    rows |= headers
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in rows.items()), "", ""]
    return "\r\n".join(lines).encode()


def _parts(request: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for message in request["messages"]:
        content = message["content"]
        yield from content if isinstance(content, list) else [{"type": "text", "text": content}]


def _labels(request: dict[str, Any]) -> list[str]:
    """The labels of the question, in its order."""
    text = " ".join(part["text"] for part in _parts(request) if part["type"] == "text")
    found = re.findall(r'"(\w+)": …', text)
    return found or re.search(r"one of: ([\w, ]+)", text)[1].split(", ")  # type: ignore[index]


def audio_of(request: dict[str, Any]) -> np.ndarray:
    """The samples that a chat request holds; raises when they are not 16-bit mono WAV at 16 kHz."""
    (part,) = [part for part in _parts(request) if part["type"] == "input_audio"]
    data = base64.b64decode(part["input_audio"]["data"], validate=True)
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


def _seconds(request: dict[str, Any]) -> float:
    try:
        return len(audio_of(request)) / 16_000
    except (ValueError, wave.Error, binascii.Error):
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--mix", type=float, default=0.0)
    options = parser.parse_args()
    with LlmServer(**vars(options), keep=False) as server:
        print(server.url, flush=True)  # noqa: T201
        threading.Event().wait()


if __name__ == "__main__":
    main()
