"""Asks a teacher for the draws that the store lacks. What every teacher shares is here."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip
from mifuse.errors import AudioError
from mifuse.teachers.base import Teacher
from mifuse.teachers.prices import Price
from mifuse.teachers.questions import Labelled, Question, grouped
from mifuse.teachers.session import OutOfBudgetError, Run
from mifuse.teachers.store.database import DrawsStore


@dataclass(frozen=True)
class Plan:
    """What there is and what is to be asked."""

    present: int
    questions: tuple[Question, ...]


def plan(clips: Iterable[Clip], draws: int, stored: Set[tuple[str, int]], cache: AudioCache) -> Plan:
    """Compare what is wanted with the `keys` of a store; equal content is wanted once, by its first name.

    Questions come draw by draw, not clip by clip: whoever stops early has fewer draws of all clips
    rather than all draws of some.
    """
    unique: dict[str, Clip] = {}
    for clip in clips:
        unique.setdefault(cache.hash(clip), clip)
    questions = tuple(
        Question(clip, clip_hash, draw)
        for draw in range(draws)
        for clip_hash, clip in unique.items()
        if (clip_hash, draw) not in stored
    )
    return Plan(len(unique) * draws - len(questions), questions)


def estimate(
    teacher: Teacher, questions: Iterable[Question], price: Price | None, mean: float | None
) -> dict[str, Any]:
    """What it takes to ask: requests, the most tokens and USD; {} for a teacher that bills nothing.

    Clips that cannot be read are counted as `unreadable` and left out: they will not be asked about.

    Args:
        mean: USD of a request of this teacher so far; gives `usd_likely`.
    """
    if price is None:
        return {}
    requests, usd = 0, 0.0
    tokens: Counter[str] = Counter()
    most: dict[tuple[str, int], Mapping[str, int]] = {}  # a clip's own requests are alike
    unreadable: set[str] = set()
    for one in grouped(questions, teacher.per_request):
        key = (one.clip_hash, len(one.draws))
        try:
            if key not in most:
                most[key] = teacher.most_usage(one.clip, len(one.draws))
        except AudioError:
            unreadable.add(one.clip_hash)
            continue
        requests += 1
        tokens.update(most[key])
        usd += price.most(most[key])
    found: dict[str, Any] = {"requests": requests, "tokens_at_most": dict(tokens)}
    found["usd_at_most"] = round(usd, 6)
    if mean is not None:
        found["usd_likely"] = round(mean * requests, 6)
    if unreadable:
        found["unreadable"] = len(unreadable)
    return found | {"prices_of": price.date or "--price"}


async def label_clips(
    teacher: Teacher,
    questions: Iterable[Question],
    store: DrawsStore,
    progress: Callable[[int], None] = lambda _: None,
    labels: Sequence[str] | None = LABELS,
    *,
    price: Price | None = None,
    budget: float | None = None,
) -> Labelled:
    """Ask at most `teacher.concurrency` requests at a time and store each answer before the next is asked.

    Args:
        progress: called with the number of questions answered, after their answers are on the disk.
        labels: that every answer must name; None takes distributions over any labels.
        price: of the teacher's tokens; None for a teacher that bills nothing and needs no ledger.
        budget: USD that the store's answers may cost in all, of other runs and processes too.

    Raises:
        ServiceError: the service refuses all requests or is down.
        DrawsError: the store fails.
        Nothing new is asked then, nor after any other error of `ask` than DrawsError and AudioError;
        answers to the requests that are open are waited for and stored first.
    """
    run = Run(teacher, store, progress, labels, price=price, budget=budget)
    run.todo.extend(grouped(questions, teacher.per_request))
    try:
        outcomes = await asyncio.gather(
            *(run.work() for _ in range(min(teacher.concurrency, len(run.todo)))), return_exceptions=True
        )
    except asyncio.CancelledError:  # Ctrl-C
        await run.wait_for_answers()
        raise
    finally:
        await run.settling.flush()
    for outcome in outcomes:
        if outcome is not None and not isinstance(outcome, OutOfBudgetError):
            raise outcome
    return run.result(sum(len(left.draws) for left in run.todo))
