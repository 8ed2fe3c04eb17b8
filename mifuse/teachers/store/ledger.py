"""Who may send a request: one process for each question, nobody past the budget. Tables of the store."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mifuse.teachers.base import Source

ROUNDING_USD = 1e-9  # sums of floats; a hundredth of the cheapest token
BATCH = "batch:"
OF_SOURCE = "teacher = ? AND model = ? AND prompt = ?"


@dataclass(frozen=True)
class Wanted:
    """A request about to be sent."""

    source: Source
    clip: str
    draws: tuple[int, ...]
    group: int
    """First of the draws that share its prompt: of two requests for one group only one is let through."""
    usd: float = 0.0
    """The most that it can cost."""


@dataclass(frozen=True)
class Grant:
    """Leave to send a request."""

    id: int | None
    draws: tuple[int, ...]
    """Those that no other process has stored in the meantime; with none there is nothing to send."""
    refused: Literal["", "taken", "batch", "budget"] = ""
    """`taken`: another process asks for it now; `batch`: an open batch does."""


def owner() -> str:
    """This process, as the ledger knows it."""
    return f"{platform.node()}:{os.getpid()}"


def batch_owner(number: int) -> str:
    """A batch waits for its answers whatever becomes of the process that sent it."""
    return f"{BATCH}{number}"


def is_waiting(name: str) -> bool:
    """Whether an owner is still there, as far as can be seen from this machine."""
    host, _, process = name.rpartition(":")
    if host != platform.node():
        return bool(name)
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it lives
        pass
    return True


def reserve(
    db: sqlite3.Connection, wanted: Sequence[Wanted], budget: float | None, who: str, lease: float
) -> list[Grant]:
    """See `DrawsStore.reserve`; within a transaction."""
    total, grants = sum(totals(db)), []
    for one in wanted:
        grant = _grant(db, one, None if budget is None else budget - total, who, lease)
        total += one.usd if grant.id is not None else 0.0
        grants.append(grant)
    return grants


def _grant(db: sqlite3.Connection, wanted: Wanted, left: float | None, who: str, lease: float) -> Grant:
    source = wanted.source
    key = (source.teacher, source.model, source.prompt, wanted.clip)
    marks = ", ".join("?" * len(wanted.draws))
    found = db.execute(
        f"SELECT draw FROM draws WHERE {OF_SOURCE} AND clip = ? AND draw IN ({marks})",
        (*key, *wanted.draws),
    )
    stored = {row[0] for row in found}
    draws = tuple(draw for draw in wanted.draws if draw not in stored)
    if not draws:
        return Grant(None, ())
    now = time.time()
    others = db.execute(
        f"SELECT owner FROM reservations WHERE {OF_SOURCE} AND clip = ? AND draw = ? AND expires > ?",
        (*key, wanted.group, now),
    ).fetchall()
    for (other,) in others:
        if is_waiting(other):
            return Grant(None, draws, "batch" if other.startswith(BATCH) else "taken")
    if left is not None and not wanted.usd <= left + ROUNDING_USD:  # NaN on either side allows nothing
        return Grant(None, draws, "budget")
    row = db.execute(
        "INSERT INTO reservations (teacher, model, prompt, clip, draw, usd, owner, expires) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*key, wanted.group, wanted.usd, who, now + lease),
    )
    return Grant(row.lastrowid, draws)


def totals(db: sqlite3.Connection) -> tuple[float, float]:
    """USD of the whole store: paid, and the most that unsettled requests can cost."""
    query = "SELECT (SELECT total(usd) FROM spending), (SELECT total(usd) FROM reservations)"
    found: tuple[float, float] = db.execute(query).fetchone()
    return found


def spent(db: sqlite3.Connection) -> dict[Source, tuple[float, float]]:
    """`totals` by source."""
    query = """
        SELECT teacher, model, prompt, total(paid), total(open) FROM (
            SELECT teacher, model, prompt, usd AS paid, 0 AS open FROM spending
            UNION ALL SELECT teacher, model, prompt, 0, usd FROM reservations
        ) GROUP BY teacher, model, prompt
    """
    return {Source(*row[:3]): (row[3], row[4]) for row in db.execute(query)}


def forget_the_dead(db: sqlite3.Connection, source: Source | None) -> int:
    """Delete reservations that nobody waits for; returns how many. Within a transaction."""
    rows = db.execute("SELECT id, owner, teacher, model, prompt, expires FROM reservations").fetchall()
    dead = [
        (row[0],)
        for row in rows
        if (source is None or Source(*row[2:5]) == source)
        and not (is_waiting(row[1]) and row[5] > time.time())
    ]
    db.executemany("DELETE FROM reservations WHERE id = ?", dead)
    return len(dead)
