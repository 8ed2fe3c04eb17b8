"""How fast to ask: as many requests at a time as the service takes, and no more than its rate limits allow.

The number of open requests grows with each reply and shrinks when the service says that it is too many. Where
the replies say what is left of a limit, requests wait for room in it instead of running into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from mifuse.teachers.service import ServiceError, seconds

START = 8  # open requests before anything is known
FIRST_WAIT = 0.5  # s, before the second try; doubled for each further one
LONGEST_WAIT = 8.0  # s, between two tries of one request
LONGEST_PAUSE = 60.0  # s, of all requests when the limit is hit and the service does not say for how long
LONGEST_RESET = 3600.0  # s
SHRINK = 0.7  # of the open requests, at most once a second


def backoff(tries: int) -> float:
    """Seconds to wait before try number `tries` + 1, with jitter."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311


@dataclass
class Limit:
    """What is known of one rate limit: so much room at a time, refilled steadily."""

    most: float
    room: float
    rate: float  # per second
    at: float  # when `room` was true, s

    def room_at(self, now: float) -> float:
        return min(self.most, self.room + self.rate * (now - self.at))

    def take(self, cost: float, now: float) -> None:
        self.room, self.at = self.room_at(now) - cost, now

    def wait(self, cost: float, now: float) -> float:
        """Seconds until there is room for `cost`; a cost above the whole limit waits for all of it."""
        lacking = min(cost, self.most) - self.room_at(now)
        return 0.0 if lacking <= 0 else lacking / max(self.rate, 1e-3)


class Pace:
    """The gate that every request of a run passes.

    Args:
        most: the most requests open at a time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = float(min(most, START))
        self.open = 0
        self.tokens = 0.0  # mean of a request
        self.last_reply = time.monotonic()
        self._limits: dict[str, Limit] = {}
        self._resume = 0.0
        self._pauses = 0
        self._shrunk = 0.0
        self._growing = True  # doubling until the first sign of too much
        self._turnstile = asyncio.Lock()
        self._left = asyncio.Event()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for this request's turn; it is open until the block ends."""
        async with self._turnstile:  # one waits, the others queue behind it
            while True:
                self._left.clear()
                now = time.monotonic()
                if self.open >= int(self.allowed):
                    await self._left.wait()
                elif (delay := self._delay(now)) > 0:
                    await asyncio.sleep(min(delay, 1.0))
                else:
                    break
            self.open += 1
            for kind, limit in self._limits.items():
                limit.take(self._cost(kind), now)
        try:
            yield
        finally:
            self.open -= 1
            self._left.set()

    def _cost(self, kind: str) -> float:
        return 1.0 if kind == "requests" else self.tokens

    def _delay(self, now: float) -> float:
        waits = [limit.wait(self._cost(kind), now) for kind, limit in self._limits.items()]
        return max([self._resume - now, *waits])

    def replied(self, headers: Mapping[str, str], tokens: int) -> None:
        """A request was answered; called before its turn ends."""
        now = time.monotonic()
        self.last_reply = now
        self._pauses = 0
        self.tokens = tokens if self.tokens == 0 else 0.9 * self.tokens + 0.1 * tokens
        self.allowed = min(self.most, self.allowed + (1.0 if self._growing else 1.0 / self.allowed))
        for kind, (most, left, reset) in limits(headers).items():
            # Others on the way may be counted in `left` or not; the safe side is that they are not.
            room = left - (self.open - 1) * self._cost(kind)
            known = self._limits.get(kind)
            rate = (most - left) / reset if reset > 0 and most > left else known.rate if known else most / 60
            self._limits[kind] = Limit(most, room, rate, now)

    def failed(self, error: ServiceError) -> None:
        """A request was not answered."""
        now = time.monotonic()
        if error.kind not in ("limit", "busy", "slow"):
            return
        self._growing = False
        if now - self._shrunk > 1.0:
            self.allowed = max(1.0, SHRINK * min(self.allowed, self.open))
            self._shrunk = now
        if error.kind == "limit":
            wait = error.wait
            if wait is None:
                wait = min(LONGEST_PAUSE, FIRST_WAIT * 2.0**self._pauses) * random.uniform(0.5, 1.0)  # noqa: S311
                self._pauses += 1
            self._resume = max(self._resume, now + wait)


def limits(headers: Mapping[str, str]) -> dict[str, tuple[float, float, float]]:
    """Limit, what is left, and seconds until all is left again, by what is counted; what the headers say.

    >>> limits({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59",
    ...         "x-ratelimit-reset-requests": "1s"})
    {'requests': (60.0, 59.0, 1.0)}
    """
    found = {}
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        for name in (f"x-ratelimit-{{}}-{kind}", f"anthropic-ratelimit-{kind}-{{}}"):
            try:
                most, left = (float(headers[name.format(part)]) for part in ("limit", "remaining"))
            except (KeyError, ValueError):
                continue
            reset = seconds(headers.get(name.format("reset"), ""))
            # A limit that nobody waits out, or that is no number, is none that can be kept.
            if (
                reset is not None
                and 0 < most < math.inf
                and -most <= left < math.inf
                and reset <= LONGEST_RESET
            ):
                found[kind] = (most, left, reset)
    return found
