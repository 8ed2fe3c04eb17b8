"""How fast is asked: waiting, growing, shrinking, and what the headers say."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import time

import pytest

from mifuse.teachers import pacing
from mifuse.teachers.pacing import START, Limit, Pace, backoff, limits
from mifuse.teachers.service import ServiceError, retry_after, seconds

REQUESTS = "x-ratelimit-{}-requests"


def headers(most: float, left: float, reset: str, name: str = REQUESTS) -> dict[str, str]:
    return {name.format("limit"): str(most), name.format("remaining"): str(left), name.format("reset"): reset}


async def send(pace: Pace, count: int, each: float = 0.0, reply: dict[str, str] | None = None) -> int:
    """Send `count` requests as fast as they may; the most that were open at a time."""
    most = 0

    async def one() -> None:
        nonlocal most
        async with pace.turn():
            most = max(most, pace.open)
            await asyncio.sleep(each)
            pace.replied(reply or {}, 100)

    await asyncio.gather(*(one() for _ in range(count)))
    return most


def test_open_requests_grow_with_replies_up_to_the_most() -> None:
    pace = Pace(20)
    assert asyncio.run(send(pace, START, 0.01)) == START
    assert asyncio.run(send(Pace(3), 10, 0.001)) == 3
    assert asyncio.run(send(Pace(20), 100, 0.005)) == 20


def test_too_much_halts_all_and_shrinks_once_a_second() -> None:
    async def run() -> tuple[float, float, float]:
        pace = Pace(10)
        await send(pace, 10)
        async with pace.turn():
            pace.open = 10
            pace.failed(ServiceError("429", "limit", wait=0.2))
            pace.failed(ServiceError("529", "busy"))
            pace.open = 1
        after, started = pace.allowed, time.monotonic()
        await send(pace, 1)
        return after, pace.allowed, time.monotonic() - started

    after, grown, waited = asyncio.run(run())
    assert after == pytest.approx(7.0)
    assert after < grown < after + 0.5  # no doubling any more
    assert 0.19 < waited < 1.0


def test_bad_luck_does_not_slow_down() -> None:
    pace = Pace(10)
    pace.failed(ServiceError("500", "retry"))
    assert pace.allowed == START


def test_requests_wait_for_the_room_that_headers_tell_of() -> None:
    async def run() -> float:
        pace = Pace(50)
        # 10 a second, 5 of them left: the first is known to be served, so 4 or 5 go at once, the rest wait.
        await send(pace, 1, reply=headers(10, 5, "500ms"))
        started = time.monotonic()
        for _ in range(8):
            async with pace.turn():
                pass
        return time.monotonic() - started

    assert 0.25 < asyncio.run(run()) < 0.8


def test_a_limit_refills_steadily_and_a_request_above_it_can_pass() -> None:
    limit = Limit(most=10, room=10, rate=5, at=0.0)
    limit.take(8, now=0.0)
    assert limit.wait(2, now=0.0) == 0
    assert limit.wait(4, now=0.0) == pytest.approx(0.4)
    assert limit.room_at(100.0) == 10
    assert limit.wait(1000, now=100.0) == 0


def test_both_families_of_headers_are_read() -> None:
    soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=30)).isoformat()
    found = limits(
        headers(50, 49, soon.replace("+00:00", "Z"), "anthropic-ratelimit-requests-{}")
        | headers(8000, 7000, "6m0s", "x-ratelimit-{}-tokens")
        | headers(9, 8, "whenever", "x-ratelimit-{}-input-tokens")
    )
    assert found == {"requests": (50, 49, pytest.approx(30, abs=1)), "tokens": (8000, 7000, 360)}
    assert limits({}) == limits(headers("many", 1, "1s")) == {}  # type: ignore[arg-type]


def test_retry_after_in_all_its_forms() -> None:
    date = email.utils.format_datetime(
        datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=20)
    )
    assert retry_after({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    assert retry_after({"retry-after": "2"}) == 2
    assert retry_after({"retry-after": date}) == pytest.approx(20, abs=2)
    assert retry_after({"retry-after": "soon"}) is retry_after({}) is None
    assert retry_after({"retry-after": "-3"}) == 0
    assert seconds("1h2m3s") == 3723
    assert seconds("") is None


def test_backoff_grows_and_is_bounded() -> None:
    waits = [backoff(tries) for tries in range(1, 12)]
    assert all(pacing.FIRST_WAIT / 2 <= wait <= pacing.LONGEST_WAIT for wait in waits)
    assert waits[-1] >= pacing.LONGEST_WAIT / 2
