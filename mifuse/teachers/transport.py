"""How services are asked over HTTP: where the recording goes and how much may come back is ours to say."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import math
import urllib.parse
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from mifuse.teachers.service import Kind, ServiceError

T = TypeVar("T")

LARGEST_REPLY = 16 << 20  # bytes: 128 answers of 1000 tokens with 20 alternatives each have 15 MB
GRACE = 1.0  # s, for what is done here: a busy machine is not the service's fault
LARGEST_RESULTS = 256 << 20  # bytes, of a batch


class ReplyError(ValueError):
    """A reply that must not be read on; SDKs let it pass.

    Args:
        kind: as of `ServiceError`.
    """

    def __init__(self, why: str, kind: Kind = "busy") -> None:
        super().__init__(why)
        self.kind = kind


def client(sdk: Any, timeout: float) -> Any:
    """An HTTP client for an SDK: it follows nobody, and reads no more than an answer can have.

    Args:
        sdk: the package `openai` or `anthropic`, whose defaults for connections stay.
        timeout: s, between two bytes; `within` bounds the whole.
    """
    # Compressed, a reply of 16 MB can become one of 16 GB at a time.
    headers = {"Accept-Encoding": "identity"}
    hooks = {"response": [_check]}
    return sdk.DefaultAsyncHttpxClient(
        follow_redirects=False, timeout=timeout, headers=headers, event_hooks=hooks
    )


def keep_to(http: Any, address: Any) -> None:
    """Have a `client` refuse to ask any other machine than that of an address.

    A reply may name one, such as where a batch's results are, and an SDK would send the key there.
    """
    named = (address.scheme, address.host, address.port)

    async def check(request: Any) -> None:
        if (request.url.scheme, request.url.host, request.url.port) != named:
            raise ReplyError(
                f"points to {str(request.url.host)[:100]}: nothing is sent there; "
                "name the address that is meant with --base-url",
                "stop",
            )

    http.event_hooks = http.event_hooks | {"request": [check]}


async def within(seconds: float, asking: Awaitable[T], who: str) -> T:
    """What is awaited, or the error that it took longer, however many bytes came in the meantime.

    Raises:
        ServiceError: it took longer; it may be billed all the same.
    """
    if math.isinf(seconds):
        return await asking
    try:
        return await asyncio.wait_for(asking, seconds + GRACE)
    except asyncio.TimeoutError:  # not the built-in one in Python 3.10
        raise ServiceError(f"{who} did not answer within {seconds:g} s", "slow", billed=True) from None


async def _check(response: Any) -> None:
    """Called when the head of a reply is there, before its body is read."""
    if 300 <= response.status_code < 400:
        where = str(response.headers.get("location", ""))
        host = urllib.parse.urlsplit(where).hostname or "another address"
        raise ReplyError(
            f"answered {response.status_code} and points to {host[:100]}: nothing is sent there; "
            "name the address that is meant with --base-url",
            "stop",
        )
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ReplyError("sent a compressed reply, which was not asked for")
    results = str(response.url.path).endswith("/results")
    response.stream = _bounded(response, LARGEST_RESULTS if results else LARGEST_REPLY)


def _bounded(response: Any, most: int) -> Any:
    """The stream of a response, which ends with an error after so many bytes."""
    # httpx or its heir, whichever the SDK uses: it takes streams of its own class only.
    kind = importlib.import_module(type(response).__module__.partition(".")[0]).AsyncByteStream
    stream = response.stream

    class Bounded(kind):  # type: ignore[misc, valid-type]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = most
            async for chunk in stream:
                left -= len(chunk)
                if left < 0:
                    raise ReplyError(f"sent more than {most >> 20} MB for an answer", "clip")
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    return Bounded()


def is_open_to_readers(address: str, key: str) -> bool:
    """Whether a key would go over the network for anybody to read."""
    parts = urllib.parse.urlsplit(address)
    return bool(key) and parts.scheme == "http" and not _is_here(parts.hostname or "")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
