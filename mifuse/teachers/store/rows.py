"""What a draws store holds: answers, what is owed for them, batches; and answers as rows of its tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mifuse.teachers.base import Answer, Invalid, Source


@dataclass(frozen=True)
class StoredDraw:
    """One row: draw `draw` of `source` for the clip with the content hash `clip`."""

    source: Source
    clip: str
    draw: int
    answer: Answer


@dataclass(frozen=True)
class StoredInvalid:
    """An answer for a draw that was none."""

    clip: str
    draw: int
    answer: Invalid


@dataclass(frozen=True)
class Settled:
    """The end of a request; one without answers was not billed."""

    source: Source
    reservation: int | None
    usd: float = 0.0
    draws: Sequence[StoredDraw] = ()
    invalid: Sequence[StoredInvalid] = ()


@dataclass(frozen=True)
class OpenBatch:
    """A batch whose answers are not all stored."""

    number: int
    id: str | None
    """The service's name of it; None when nobody knows whether it arrived."""
    requests: int
    sender: str
    """The process that sends it, as the ledger knows it."""
    created: float
    """Seconds since 1970, by this machine's clock."""


def key_of(source: Source) -> tuple[str, str, str]:
    return source.teacher, source.model, source.prompt


def dimensions_of(row: StoredDraw) -> tuple[object, ...]:
    """A row of the table `dimensions`."""
    return (*key_of(row.source), row.clip, row.draw, json.dumps(dict(row.answer.dimensions)))


def row_of(source: Source, row: StoredDraw | StoredInvalid) -> tuple[object, ...]:
    answer = row.answer
    usage = None if answer.usage is None else json.dumps(dict(answer.usage))
    if isinstance(answer, Invalid):
        said: tuple[object, ...] = (answer.problem, answer.attempt)
    else:
        said = (json.dumps(dict(answer.probs)),)
    return (
        *key_of(source), row.clip, row.draw,
        *said, answer.raw, usage, answer.price_usd, answer.request_id,
    )  # fmt: skip
