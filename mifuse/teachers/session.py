"""One run over the questions: leave from the ledger, the request, its retries, the verdict, the store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from mifuse.errors import AudioError, DrawsError
from mifuse.teachers.answers import parse_all
from mifuse.teachers.base import Answer, Invalid, Reply, Said, Teacher, check_answer, check_said
from mifuse.teachers.pacing import LONGEST_WAIT, Pace, backoff
from mifuse.teachers.prices import Price
from mifuse.teachers.questions import Group, Labelled, Question, request_key
from mifuse.teachers.replies import billed
from mifuse.teachers.service import ServiceError
from mifuse.teachers.store import ledger
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.ledger import Grant, Wanted
from mifuse.teachers.store.rows import Settled, StoredDraw, StoredInvalid
from mifuse.teachers.together import Together
from mifuse.teachers.transport import within
from mifuse_runtime.dimensions import Ranges
from mifuse_runtime.shown import shown

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)

MAX_ATTEMPTS = 5  # invalid answers of a draw, over all runs; then it is reported as missing
TRIES = 10  # of one request that gets no answer; waiting for a rate limit does not count
FIRST_TRIES = 4  # while the service has answered nothing in this run: more likely its address is wrong
SENSELESS = 40  # invalid answers before the first valid one; the model does not understand, the run stops
EXCESSIVE = 2  # times in a row that a service asks to wait for longer than PATIENCE; then the run stops
GIVE_UP = 10  # requests in a row that got none: the service is down, the run stops
PATIENCE = 900.0  # s of nothing but "too many requests"
DEADLINE = 900.0  # s, of a request of a teacher that does not say
SETTLING = 300.0  # s, from an answer to its place in the store: other processes write, clocks differ
LONG_PAUSE = 30.0  # s; a longer wait that a service asks for is said
PROBLEM = 300  # characters of what is wrong with an answer
LOOK_AGAIN = 0.2  # s between two looks at what another process is asking


class OutOfBudgetError(Exception):
    """No request fits into what is left."""


class ClipError(Exception):
    """This clip has no answer; the others go on."""


class Run:
    """The state of one `label_clips`; see there."""

    def __init__(
        self,
        teacher: Teacher,
        store: DrawsStore,
        progress: Callable[[int], None],
        labels: Sequence[str] | None,
        *,
        price: Price | None,
        budget: float | None,
    ) -> None:
        self.teacher, self.store, self.progress, self.labels = teacher, store, progress, labels
        self.price, self.budget = price, budget
        self.todo: deque[Group] = deque()
        self.missing: list[tuple[Question, str]] = []
        self.added = self.invalid = 0
        self.usd = 0.0
        self.settling: Together[Settled, None] = Together(self._settle_all)
        self._reserving: Together[Wanted, Grant] = Together(self._reserve_all)
        self.attempts = store.attempts(teacher.source)
        self.prunes = store.prunes(teacher.source)
        self._problems: dict[tuple[str, int], str] = {}  # the last of each draw that is asked again
        self._pace = Pace(teacher.concurrency)
        self._open = 0  # reservations
        self._buying: set[asyncio.Task[Any]] = set()
        self._room = asyncio.Event()  # one of them was answered
        self._closings = 0  # how many were
        self._deadline: float = getattr(teacher, "deadline", DEADLINE)
        self._ranges: Ranges = getattr(teacher, "dimensions", {})  # of the numbers that it is asked for
        self._taken: dict[tuple[str, int], float] = {}  # since when another process asks for it, s
        self._failures = 0  # in a row
        self._excessive, self._asked_again = 0, 0.0
        self._odd = False  # whether it was said that counts of tokens make no sense
        self._reached = False
        self._understood = teacher.source in store.sources()
        self._stopped = False

    def result(self, unasked: int = 0) -> Labelled:
        """What the run did."""
        return Labelled(self.added, tuple(self.missing), self.invalid, self.usd, unasked)

    async def work(self) -> None:
        """Take groups until there are none."""
        try:
            while not self._stopped and self.todo:
                left = await self._settle_group(self.todo.popleft())
                if left is not None:
                    self.todo.append(left)
                self._check_sense()
        except BaseException:
            self._stopped = True
            raise

    async def _settle_group(self, group: Group) -> Group | None:
        """Returns what is left to do of it, later."""
        draws = group.draws
        while draws and not self._stopped:
            attempt = self.attempts.get((group.clip_hash, draws[0]), 0)
            alike = tuple(d for d in draws if self.attempts.get((group.clip_hash, d), 0) == attempt)
            done: Sequence[int] | None
            try:
                self.check_attempts(group, draws[0], attempt)
                done = await self._request(group, alike, attempt)
            except ClipError as error:
                self.give_up(group, alike, str(error))
                done = alike
            except OutOfBudgetError:
                self.todo.append(Group(group.clip, group.clip_hash, draws))
                raise
            if done is None:
                self._check_waiting(group)
                await asyncio.sleep(LOOK_AGAIN)
                break
            draws = tuple(draw for draw in draws if draw not in done)
        return Group(group.clip, group.clip_hash, draws) if draws else None

    def _check_sense(self) -> None:
        """Stop buying where no answer at all can be used."""
        self._understood = self._understood or self.added > 0
        if not self._understood and self.invalid >= SENSELESS:
            problem = next(iter(self.store.problems(self.teacher.source)), "")
            raise ServiceError(
                f"{self.teacher.source}: none of {self.invalid} answers is a distribution over the labels, "
                f"most often: {problem}: check --model and --base-url, and see `mifuse draws info`",
                "stop",
            )

    def _check_waiting(self, group: Group) -> None:
        """Give up on what another process seems to ask for longer than a request can be open."""
        since = self._taken.setdefault((group.clip_hash, group.draws[0]), time.monotonic())
        if time.monotonic() - since > self.lease:
            self._stopped = True
            raise DrawsError(
                f"{self.store.path}: another run has asked for {group.clip.name!r} for more than "
                f"{self.lease:.0f} s: end it, or let go of that with `mifuse draws prune --unsettled`"
            )

    def check_attempts(self, group: Group, draw: int, attempt: int) -> None:
        """Refuse to buy more of what was invalid so often; raises ClipError."""
        if attempt >= MAX_ATTEMPTS:
            problem = self._problems.get((group.clip_hash, draw), "see `mifuse draws info`")
            raise ClipError(f"{attempt} invalid answers, the last: {problem}")

    def give_up(self, group: Group, draws: Sequence[int], why: str) -> None:
        """Report draws as missing."""
        reason = f"{self.teacher.source}, {group.clip.name!r}: {why}"
        self.missing += [(Question(group.clip, group.clip_hash, draw), reason) for draw in draws]
        self.progress(len(draws))

    async def _request(self, group: Group, draws: tuple[int, ...], attempt: int) -> Sequence[int] | None:
        """The draws that are answered after this, None while another process is asking for them."""
        tries, most = 0, self.most(group, len(draws))
        while not self._stopped:
            closings = self._closings
            try:
                async with self._pace.turn():
                    grant, keeping = await asyncio.shield(
                        self._to_its_end(self._buy(group, draws, attempt, most))
                    )
            except ServiceError as error:
                tries += error.kind != "limit"
                self._consider(error, tries)
                await asyncio.sleep(0.0 if error.kind == "limit" else max(backoff(tries), error.wait or 0.0))
                continue
            if grant.refused == "batch":
                raise ClipError("an open batch asks for it: collect it with --batch")
            if grant.refused == "taken":
                return None
            if not grant.refused:
                gone = [draw for draw in draws if draw not in grant.draws]  # another process was faster
                self.progress(len(gone))
                return gone + (await asyncio.shield(keeping) if keeping else [])
            await self._wait_for_room(closings)
        return ()

    async def _buy(
        self, group: Group, draws: tuple[int, ...], attempt: int, most: float
    ) -> tuple[Grant, asyncio.Task[list[int]] | None]:
        """Leave to ask, and the storing of the answer, which the next request need not wait for."""
        grant = await self._reserve(group, draws, most)
        if grant.refused or not grant.draws:
            return grant, None
        if self._stopped:
            await self.drop(group, grant, billed=False)
            return grant, None
        reply = await self._ask(group, grant, attempt)
        return grant, self._to_its_end(self.keep(group, grant, attempt, reply))

    def _to_its_end(self, buying: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Also when the run is cancelled: what is asked is paid."""
        task = asyncio.create_task(buying)
        self._buying.add(task)
        task.add_done_callback(self._buying.discard)
        return task

    async def wait_for_answers(self) -> None:
        """Until all that was asked is stored."""
        if self._buying:
            _LOGGER.warning("%d answers are on their way: Ctrl-C again to lose them", len(self._buying))
        while self._buying:
            await asyncio.wait(self._buying)

    async def _ask(self, group: Group, grant: Grant, attempt: int) -> Reply:
        key = request_key(self.teacher.source, group.clip_hash, grant.draws, attempt, self.prunes)
        try:
            reply = await within(
                self._deadline,
                self.teacher.ask(group.clip, grant.draws, attempt, key),
                str(self.teacher.source),
            )
        except ServiceError as error:
            stop = self._capped(error)
            self._pace.failed(error)
            await self.drop(group, grant, error.billed, error.usage)
            raise stop or error from None
        except (DrawsError, AudioError) as error:
            await self.drop(group, grant, billed=False)
            raise ClipError(str(error)) from error
        self._failures, self._reached, self._excessive = 0, True, 0
        used, _ = billed(reply.usage, self.teacher.most_usage(group.clip, len(grant.draws)))
        self._pace.replied(reply.headers, sum(used.values()))
        return reply

    def _capped(self, error: ServiceError) -> ServiceError | None:
        """Bring what a service asks to wait within reason; an error where it does not listen to that."""
        asked = error.wait or 0.0
        if asked <= LONG_PAUSE:
            return None
        if asked <= PATIENCE:
            _LOGGER.warning("%s: waiting for %.0f s, as it asks", error, asked)
            return None
        error.wait = LONGEST_WAIT
        self._excessive += time.monotonic() > self._asked_again
        if self._excessive >= EXCESSIVE:
            return ServiceError(f"{error}; it asks to wait for {asked:g} s: run again later", "stop")
        self._asked_again = time.monotonic() + LONGEST_WAIT
        _LOGGER.warning("%s: it asks to wait for %g s, trying again in %g s", error, asked, LONGEST_WAIT)
        return None

    def _consider(self, error: ServiceError, tries: int) -> None:
        """Whether to try again; raises when not."""
        silent = time.monotonic() - self._pace.last_reply
        if error.kind == "stop" or (error.kind == "limit" and silent > PATIENCE):
            raise error
        if error.kind in ("away", "slow") and not self._reached and tries >= FIRST_TRIES:
            raise error
        if error.kind == "clip" or tries >= TRIES:
            self._failures += 1
            if self._failures >= GIVE_UP:
                raise ServiceError(
                    f"{error}; {GIVE_UP} requests in a row had no answer: try again later", "stop"
                )
            raise ClipError(str(error)) from None
        _LOGGER.info("%s: try %d follows", error, tries + 1)

    async def _reserve(self, group: Group, draws: tuple[int, ...], usd: float) -> Grant:
        if self.price is None:
            return Grant(None, draws)
        first = draws[0] - draws[0] % self.teacher.per_request
        grant = await self._reserving.put(Wanted(self.teacher.source, group.clip_hash, draws, first, usd))
        self._open += grant.id is not None
        return grant

    def _reserve_all(self, wanted: list[Wanted]) -> Sequence[Grant]:
        return self.store.reserve(wanted, self.budget, ledger.owner(), self.lease)

    @property
    def lease(self) -> float:
        """Seconds that a request can be open: then it is answered and stored, or nobody waits for it."""
        return self._deadline + SETTLING

    async def _wait_for_room(self, closings: int) -> None:
        """Open requests may turn out cheaper than what is set aside for them, or have so by now."""
        if self._closings == closings:
            if self._open == 0:
                raise OutOfBudgetError
            await self._room.wait()

    async def drop(
        self, group: Group, grant: Grant, billed: bool, usage: Mapping[str, object] | None = None
    ) -> None:
        """A request without a reply.

        Args:
            billed: it may have been, nobody knows.
            usage: it was, says the service.
        """
        if grant.id is not None and usage:
            usd = self._bill(group, grant, usage)[1] or 0.0
            self.usd += usd
            await self.settling.put(Settled(self.teacher.source, grant.id, usd))
        elif grant.id is not None and billed:
            self.usd += self.most(group, len(grant.draws))
            await asyncio.to_thread(self.store.abandon, grant.id)
        elif grant.id is not None:
            await self.settling.put(Settled(self.teacher.source, grant.id))
        self._closed(grant)

    def _bill(
        self, group: Group, grant: Grant, usage: Mapping[str, object]
    ) -> tuple[dict[str, int], float | None]:
        """Tokens and USD of a request: what the service says if it can be true, else the most."""
        if self.price is None:
            return {kind: n for kind, n in usage.items() if isinstance(n, int) and 0 <= n < 1 << 53}, None
        most = self.teacher.most_usage(group.clip, len(grant.draws))
        used, odd = billed(usage, most)
        highest = self.price.most(most)
        if not odd:
            return used, min(self.price.usd(used), highest)
        if not self._odd:
            self._odd = True
            _LOGGER.warning(
                "%s: %s in the counts of a reply: the most that it can cost is booked, $%.4g",
                self.teacher.source, odd, highest,
            )  # fmt: skip
        return {}, highest

    def most(self, group: Group, draws: int) -> float:
        """USD that a request can cost."""
        try:
            return self.price.most(self.teacher.most_usage(group.clip, draws)) if self.price else 0.0
        except AudioError as error:
            raise ClipError(str(error)) from error

    def _closed(self, grant: Grant) -> None:
        self._open -= grant.id is not None
        self._closings += 1
        self._room.set()
        self._room = asyncio.Event()

    async def keep(self, group: Group, grant: Grant, attempt: int, reply: Reply) -> list[int]:
        """Judge and store a reply; returns the draws that are answered now."""
        used, usd = self._bill(group, grant, reply.usage)
        said = reply.said or [Said(problem="the reply holds no answer")] * len(grant.draws)
        draws: list[StoredDraw] = []
        invalid: list[StoredInvalid] = []
        paid = (used or None, usd)
        for draw, one in zip(grant.draws, said, strict=False):
            verdict = self._judge(one)
            raw = one.text or None
            if isinstance(verdict, str):
                answer = Invalid(verdict, attempt, raw, *paid, reply.request_id)
                invalid.append(StoredInvalid(group.clip_hash, draw, answer))
            else:
                kept = Answer(verdict[0], raw, *paid, reply.request_id, verdict[1])
                draws.append(StoredDraw(self.teacher.source, group.clip_hash, draw, kept))
            paid = (None, usd and 0.0)  # the first draw of a request carries its price
        await self.settling.put(Settled(self.teacher.source, grant.id, usd or 0.0, draws, invalid))
        for bad in invalid:
            self.attempts[bad.clip, bad.draw] = attempt + 1
            self._problems[bad.clip, bad.draw] = bad.answer.problem
        self.usd += usd or 0.0
        self.invalid += len(invalid)
        self._closed(grant)
        self.progress(len(draws))
        return [draw.draw for draw in draws]

    def _judge(self, said: Said) -> tuple[dict[str, float], dict[str, float]] | str:
        """The distribution and the numbers beside it, or why there is none."""
        if said.problem:
            return shown(said.problem, PROBLEM)
        try:
            if self.labels is None:  # draws that were made elsewhere, over whatever set
                return check_said(said.probs, said.dimensions, "the answer")
            if said.probs is not None:
                return check_answer(said.probs, self.labels, "the answer"), dict(said.dimensions)
            return parse_all(said.text, self.labels, self._ranges)
        except DrawsError as error:
            return shown(error, PROBLEM)

    def _settle_all(self, outcomes: list[Settled]) -> Sequence[None]:
        self.added += self.store.settle(outcomes)
        return [None] * len(outcomes)
