"""Asks a teacher for the draws that the store lacks. What every teacher shares is here."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip
from mifuse.errors import AudioError
from mifuse.teachers.asking_again import worth_asking
from mifuse.teachers.base import Teacher
from mifuse.teachers.draws import stored_draws
from mifuse.teachers.prices import Price
from mifuse.teachers.questions import Labelled, Question, grouped
from mifuse.teachers.session import OutOfBudgetError, Run
from mifuse.teachers.store.database import DrawsStore


@dataclass(frozen=True)
class Plan:
    """What there is and what is to be asked."""

    present: int
    """Draws; of a later round those that earlier ones did not want."""
    questions: tuple[Question, ...]


def plan(
    clips: Iterable[Clip],
    draws: int | Mapping[str, int],
    stored: Set[tuple[str, int]],
    cache: AudioCache,
) -> Plan:
    """Compare what is wanted with the `keys` of a store; equal content is wanted once, by its first name.

    Questions come draw by draw, not clip by clip: whoever stops early has fewer draws of all clips
    rather than all draws of some.

    Args:
        draws: of each clip, or of each content hash.
    """
    unique: dict[str, Clip] = {}
    for clip in clips:
        unique.setdefault(cache.hash(clip), clip)
    wanted = dict.fromkeys(unique, draws) if isinstance(draws, int) else draws
    questions = tuple(
        Question(unique[clip_hash], clip_hash, draw)
        for draw in range(max(wanted.values(), default=0))
        for clip_hash, count in wanted.items()
        if draw < count and (clip_hash, draw) not in stored
    )
    return Plan(sum(wanted.values()) - len(questions), questions)


def plans(
    clips: Sequence[Clip], draws: int | None, teacher: Teacher, store: DrawsStore, cache: AudioCache
) -> Iterator[Plan]:
    """What to ask, round by round; the answers to one round are in the store before the next is made.

    Args:
        draws: of each clip, which makes one round. None: one request for each clip, then again about those
            whose label another request may change, `asking_again.MOST` draws of a clip at most.
    """
    if draws is not None:
        yield plan(clips, draws, store.keys(teacher.source), cache)
        return
    keys = store.keys(teacher.source)
    stored = Counter(clip_hash for clip_hash, _ in keys)
    hashes = map(cache.hash, clips)
    wanted, before = {one: max(teacher.per_request, stored[one]) for one in hashes}, 0
    while True:
        whole = plan(clips, wanted, keys, cache)
        yield Plan(whole.present - before, whole.questions)
        before = sum(wanted.values())
        answered = stored_draws(store.path, teacher.source, wanted)
        again = worth_asking(list(answered.values()), teacher.per_request)
        if not again.any():
            return
        for clip_hash in itertools.compress(answered, again):
            wanted[clip_hash] = len(answered[clip_hash]) + teacher.per_request
        keys = store.keys(teacher.source)


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
