"""Draws that a store lacks, the requests that they make, and what came of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from mifuse.clips.manifest import Clip


@dataclass(frozen=True, slots=True)
class Question:
    """A draw that the store lacks."""

    clip: Clip
    clip_hash: str
    draw: int


@dataclass(frozen=True, slots=True)
class Group:
    """Draws of a clip that one prompt asks for."""

    clip: Clip
    clip_hash: str
    draws: tuple[int, ...]


@dataclass(frozen=True)
class Labelled:
    """What a run of `label_clips` did."""

    added: int
    missing: tuple[tuple[Question, str], ...]
    """Questions without a usable answer, and why."""
    invalid: int = 0
    """Answers that were no distributions; they are in the store."""
    usd: float = 0.0
    """What this run has cost, requests of unknown fate at their highest price."""
    unasked: int = 0
    """Draws that the budget did not allow to ask for."""
    present: int = 0
    """Draws that needed no asking."""

    def __add__(self, other: Labelled) -> Labelled:
        return Labelled(
            self.added + other.added,
            self.missing + other.missing,
            self.invalid + other.invalid,
            self.usd + other.usd,
            self.unasked + other.unasked,
            self.present + other.present,
        )


def grouped(questions: Iterable[Question], per_request: int) -> list[Group]:
    """The requests that questions make, in their order."""
    groups: dict[tuple[str, int], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.clip_hash, question.draw // per_request), []).append(question)
    return [Group(g[0].clip, g[0].clip_hash, tuple(q.draw for q in g)) for g in groups.values()]


def request_key(*question: object) -> str:
    """Names a request. A service that honours idempotency keys bills it once however often it is sent."""
    return hashlib.sha256(repr(question).encode()).hexdigest()[:40]
