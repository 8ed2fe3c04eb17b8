"""Asks a teacher for the draws that the store lacks. What every teacher shares is here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace

from mifuse.audio import AudioCache
from mifuse.errors import DrawsError
from mifuse.labels import LABELS
from mifuse.manifest import Clip
from mifuse.teachers.base import Answer, Teacher, check_distribution
from mifuse.teachers.store import DrawsStore, StoredDraw


@dataclass(frozen=True, slots=True)
class Question:
    """A draw that the store lacks."""

    clip: Clip
    clip_hash: str
    draw: int


@dataclass(frozen=True)
class Plan:
    """What there is and what is to be asked."""

    present: int
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Labelled:
    """What a run of `label_clips` did."""

    added: int
    missing: tuple[tuple[Question, str], ...]
    """Questions without a usable answer, and why."""


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


async def label_clips(
    teacher: Teacher,
    questions: Iterable[Question],
    store: DrawsStore,
    progress: Callable[[int], None] = lambda _: None,
    labels: Sequence[str] = LABELS,
) -> Labelled:
    """Ask `teacher.concurrency` questions at a time and store each answer before the next one is asked.

    Args:
        progress: called with the number of questions settled, after their answers are on the disk.

    Raises:
        Whatever `ask` raises except DrawsError, and DrawsError when the store fails. Nothing new is asked
        then; answers to the questions that are open are waited for and stored first.
    """
    todo = iter(questions)
    unsaved: list[StoredDraw] = []
    missing: list[tuple[Question, str]] = []
    saving = asyncio.Lock()
    answered = saved = added = 0
    stopped = store_broken = False

    async def save(draw: StoredDraw) -> None:
        """Return once `draw` is on the disk. Whoever comes first saves for all who wait, in one commit."""
        nonlocal answered, saved, added, store_broken
        unsaved.append(draw)
        answered += 1
        mine = answered
        async with saving:
            if mine <= saved or store_broken:
                return
            batch = unsaved[:]
            store_broken = True  # until the opposite is known: not every waiter shall try a full disk
            added += await asyncio.to_thread(store.add, batch)
            store_broken = False
            del unsaved[: len(batch)]
            saved += len(batch)
            progress(len(batch))

    async def settle(question: Question) -> None:
        try:
            answer = await _ask(teacher, question, labels)
        except DrawsError as error:
            missing.append((question, str(error)))
            progress(1)
        else:
            await save(StoredDraw(teacher.source, question.clip_hash, question.draw, answer))

    async def settle_all() -> None:
        nonlocal stopped
        try:
            while not stopped and (question := next(todo, None)):
                await settle(question)
        finally:
            stopped = True  # nothing is left to do, or an error

    try:
        outcomes = await asyncio.gather(
            *(settle_all() for _ in range(teacher.concurrency)), return_exceptions=True
        )
    finally:
        added += store.add(unsaved) if unsaved else 0  # Ctrl-C: answered, not saved yet
    for outcome in outcomes:
        if outcome is not None:
            raise outcome
    return Labelled(added, tuple(missing))


async def _ask(teacher: Teacher, question: Question, labels: Sequence[str]) -> Answer:
    answer = await teacher.ask(question.clip, question.draw)
    probs = check_distribution(answer.probs, labels, f"{teacher.source}, {question.clip.name!r}")
    return replace(answer, probs=probs)
