"""Questions by Message Batches: half the price, answered within a day, taken up again after any stop."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import anthropic

from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip
from mifuse.errors import AudioError
from mifuse.teachers.anthropic import AnthropicTeacher
from mifuse.teachers.pacing import backoff
from mifuse.teachers.prices import Price
from mifuse.teachers.questions import Group, Labelled, Question, grouped, request_key
from mifuse.teachers.replies import mapping, text
from mifuse.teachers.service import ServiceError, scrub, service_error
from mifuse.teachers.session import PROBLEM, TRIES, ClipError, Run
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.ledger import Grant, Wanted, batch_owner, is_waiting, owner
from mifuse.teachers.store.rows import OpenBatch
from mifuse.teachers.transport import within

T = TypeVar("T")

CHUNK = 500  # requests in a batch: 45 MB of pictures, the service takes 256 MB
POLL = 30.0  # s between two looks at a batch
LEASE = 29 * 86_400.0  # s; the service keeps results for 29 days
ROUNDS = 3  # of a question whose batch brings no answer to it
COUNTS = {"processing", "succeeded", "errored", "canceled", "expired"}
LONGEST = 600.0  # s, of one call: the results of a batch are some MB
CLOCKS = 300.0  # s that the service's clock may be off


async def label_by_batches(
    teacher: AnthropicTeacher,
    questions: Sequence[Question],
    store: DrawsStore,
    progress: Callable[[int], None] = lambda _: None,
    labels: Sequence[str] = LABELS,
    *,
    price: Price,
    budget: float | None = None,
    poll: float | None = None,
) -> Labelled:
    """As `label_clips`, by batches. Batches that an earlier run has sent are waited for first.

    Args:
        price: of a batch.
        poll: seconds between two looks at a batch; None is POLL.

    Raises:
        ServiceError: the service refuses a batch or is down; what it has is collected by the next run.
    """
    run = Run(teacher, store, progress, labels, price=price, budget=budget)
    work = _Batches(run, teacher, {question.clip_hash: question.clip for question in questions}, poll or POLL)
    left = grouped(questions, 1)
    try:
        for earlier in store.batches(teacher.source):
            if earlier.id or earlier.sender == owner() or not is_waiting(earlier.sender):
                await work.collect(earlier)
        sent: list[OpenBatch] = []
        while left := work.left(left):
            # All are on their way before the first is waited for.
            chunks = [left[i : i + CHUNK] for i in range(0, len(left), CHUNK)]
            sent = [batch for chunk in chunks if (batch := await work.send(chunk))]
            for batch in sent:
                await work.collect(batch)
            if not sent:
                break
    finally:
        await run.settling.flush()
    if work.out_of_budget:
        return run.result(len(left))
    for one in left:
        run.give_up(one, one.draws, "another process asks for it: run again when it is done")
    return run.result()


class _Batches:
    """The batches of one call."""

    def __init__(self, run: Run, teacher: AnthropicTeacher, clips: Mapping[str, Clip], poll: float) -> None:
        self.run, self.teacher, self.clips, self.poll = run, teacher, clips, poll
        self.store, self.source = run.store, teacher.source
        self.given_up: set[Group] = set()
        self.out_of_budget = False
        self._failed: Counter[Group] = Counter()
        self._unsure = False  # whether a batch arrived
        self.longest = max(LONGEST, 4 * teacher.config.timeout)

    def left(self, groups: Sequence[Group]) -> list[Group]:
        """Those that are neither stored nor given up."""
        stored = self.store.keys(self.source)
        return [
            one for one in groups if (one.clip_hash, one.draws[0]) not in stored and one not in self.given_up
        ]

    async def send(self, groups: Sequence[Group]) -> OpenBatch | None:
        """Send as many of the questions as may be sent, in one batch; None when none may."""
        number = self.store.open_batch(self.source)
        wanted = [one for group in groups if (one := self._wanted(group)) is not None]
        grants = self.store.reserve([one for _, one in wanted], self.run.budget, batch_owner(number), LEASE)
        requests = []
        for (group, _), grant in zip(wanted, grants, strict=True):
            self.out_of_budget |= grant.refused == "budget"
            if grant.id is not None and (request := await self._request(group, grant)):
                requests.append(request)
        if not requests:
            self.store.close_batch(number)
            return None
        self.store.name_batch(number, None, len(requests))
        (batch,) = (one for one in self.store.batches(self.source) if one.number == number)
        try:
            name = await self._create(batch, requests)
        except ServiceError:
            if not self._unsure:  # else the next run looks for it
                await self._release(batch)
            raise
        self.store.name_batch(number, name, len(requests))
        return replace(batch, id=name)

    def _wanted(self, group: Group) -> tuple[Group, Wanted] | None:
        (draw,) = group.draws
        attempt = self.run.attempts.get((group.clip_hash, draw), 0)
        try:
            self.run.check_attempts(group, draw, attempt)
            return group, Wanted(self.source, group.clip_hash, (draw,), draw, self.run.most(group, 1))
        except ClipError as error:
            self._give_up(group, str(error))
            return None

    async def _request(self, group: Group, grant: Grant) -> Any:
        """One request of a batch; None for a clip that cannot be read."""
        (draw,) = group.draws
        attempt = self.run.attempts.get((group.clip_hash, draw), 0)
        try:
            parameters = await asyncio.to_thread(self.teacher.parameters, group.clip, draw, attempt)
        except AudioError as error:
            await self.run.drop(group, grant, billed=False)
            self._give_up(group, str(error))
            return None
        # At most 64 letters, digits, - and _.
        return {"custom_id": f"{grant.id}_{attempt}_{group.clip_hash[:32]}", "params": parameters}

    def _give_up(self, group: Group, why: str) -> None:
        self.given_up.add(group)
        self.run.give_up(group, group.draws, why)

    async def _create(self, batch: OpenBatch, requests: Sequence[Any]) -> str:
        """Send a batch, once, also where the answer to it does not arrive."""
        key = request_key(self.source, "batch", batch.number, batch.created)
        tries, self._unsure = 0, False
        while True:
            try:
                created = await within(
                    self.longest,
                    self.teacher.client.messages.batches.create(
                        requests=requests, extra_headers={"Idempotency-Key": key}
                    ),
                    self.teacher.host,
                )
                if name := text(getattr(created, "id", None)):
                    return name
                failure = self._odd()
            except ServiceError as error:
                failure = error
            except (anthropic.AnthropicError, ValueError) as error:
                failure = service_error(error, self.teacher.host, self.teacher.key)
            tries += 1
            self._unsure |= failure.billed
            if failure.kind in ("stop", "clip") or tries >= TRIES:
                raise failure
            if failure.billed and (found := await self._find(batch)):
                return found
            await asyncio.sleep(max(backoff(tries), failure.wait or 0.0))

    async def _find(self, batch: OpenBatch) -> str | None:
        """The service's name of a batch that was sent but whose name did not arrive."""
        known = {one.id for one in self.store.batches(self.source)}

        async def look() -> str | None:
            async for one in self.teacher.client.messages.batches.list(limit=100):
                if one.created_at.timestamp() < batch.created - CLOCKS:
                    return None
                size = sum(one.request_counts.model_dump(include=COUNTS).values())
                if one.id not in known and size == batch.requests:
                    return one.id
            return None

        return await self._patiently(look)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call that changes nothing, tried again where that may help."""
        tries = 0
        while True:
            try:
                return await within(self.longest, call(), self.teacher.host)
            except (anthropic.AnthropicError, ValueError) as error:
                failure = service_error(error, self.teacher.host, self.teacher.key)
            except (AttributeError, KeyError, TypeError):
                failure = self._odd()
            except ServiceError as error:
                failure = error
            tries += 1
            if failure.kind in ("stop", "clip") or tries >= TRIES:
                raise failure
            await asyncio.sleep(max(backoff(tries), failure.wait or 0.0))

    def _odd(self) -> ServiceError:
        return ServiceError(f"{self.teacher.host} answered with what is no batch", "retry", billed=True)

    async def collect(self, batch: OpenBatch) -> None:
        """Wait for a batch and store its answers."""
        name = batch.id or await self._find(batch)
        if name is None:
            await self._release(batch)
            return
        batches = self.teacher.client.messages.batches
        while (await self._patiently(lambda: batches.retrieve(name))).processing_status != "ended":
            await asyncio.sleep(self.poll)
        await self._patiently(lambda: self._settle(batch, name))
        self.store.close_batch(batch.number)

    async def _release(self, batch: OpenBatch) -> None:
        """The batch never arrived, so nothing of it is billed."""
        for reservation, (clip, draw) in self.store.reserved_by(batch_owner(batch.number)).items():
            await self.run.drop(self._group(clip, draw), Grant(reservation, (draw,)), billed=False)
        self.store.close_batch(batch.number)

    async def _settle(self, batch: OpenBatch, name: str) -> None:
        """Store the results that are not stored yet."""
        async for entry in await self.teacher.client.messages.batches.results(name):
            named = re.fullmatch(r"([0-9]{1,18})_([0-9]{1,9})_([0-9a-f]+)", text(entry.custom_id))
            reservation, attempt = (int(named[1]), int(named[2])) if named else (0, 0)
            waiting = self.store.reserved_by(batch_owner(batch.number))
            clip, draw = waiting.get(reservation, ("", 0))
            if not named or not clip.startswith(named[3]):  # stored before, or another program's
                continue
            group, grant = self._group(clip, draw), Grant(reservation, (draw,))
            if entry.result.type == "succeeded":
                message = getattr(entry.result, "message", None)
                said = message.to_dict() if isinstance(message, anthropic.BaseModel) else message
                await self.run.keep(group, grant, attempt, self.teacher.reply(mapping(said)))
                continue
            await self.run.drop(group, grant, billed=False)
            self._failed[group] += 1
            error = getattr(getattr(entry.result, "error", None), "error", None)
            kind = text(getattr(error, "type", None)) or text(entry.result.type)
            if kind == "invalid_request_error" or self._failed[group] >= ROUNDS:
                said = scrub(text(getattr(error, "message", None)), self.teacher.key)
                self._give_up(group, f"{kind}: {said or 'no answer within a day'}"[:PROBLEM])

    def _group(self, clip_hash: str, draw: int) -> Group:
        """As it was asked; the clip may be in another manifest than this run's."""
        clip = self.clips.get(clip_hash) or Clip(clip_hash[:12], Path(clip_hash[:12]))
        return Group(clip, clip_hash, (draw,))
