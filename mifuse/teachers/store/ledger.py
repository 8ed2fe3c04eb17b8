"""Who may send a request: one process for each question, nobody past the budget. Tables of the store."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mifuse.teachers.base import Source

ROUNDING_USD = 1e-9  # sums of floats; a hundredth of the cheapest token
BATCH = "batch:"
PAID = "CASE WHEN usd > 0 THEN usd ELSE 0 END"
LATE = 300.0  # s after the end of its lease in which a request may still be billed; clocks differ, too
LONGEST_LEASE = 7200.0  # s, of a request that is not in a batch
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
    """This process in the ledger: machine, number, and where that can be known, when it was started.

    Numbers of processes come again; names of machines are not always their own.
    """
    return f"{_machine()}:{os.getpid()}{_started(os.getpid())}"


@functools.cache
def _machine() -> str:
    """Name of this machine, since its last start, as its processes see it: containers share names, too."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        seen = f"{boot}.{Path('/proc/self/ns/pid').readlink()}"
    except (OSError, ValueError):  # no Linux
        seen = f"{uuid.getnode():x}"
    return f"{platform.node()}.{hashlib.sha256(seen.encode()).hexdigest()[:12]}"


def _started(process: int) -> str:
    """When a process was started, as `@` and ticks of its clock; empty where that cannot be known."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return "@" + stat.rpartition(")")[2].split()[19]  # proc_pid_stat(5): starttime, the 22nd
    except (OSError, IndexError):
        return ""


def batch_owner(number: int) -> str:
    """A batch waits for its answers whatever becomes of the process that sent it."""
    return f"{BATCH}{number}"


def is_waiting(name: str) -> bool:
    """Whether an owner is still there, as far as can be seen from this machine."""
    lives = _lives(name)
    return bool(name) if lives is None else lives


def _lives(name: str) -> bool | None:
    """Whether the process of an owner lives; None where that cannot be seen from here."""
    found = re.fullmatch(r"(.*):([0-9]{1,9})(@[0-9]+)?", name, re.DOTALL)
    # The name alone: owners of earlier versions.
    if not found or found[1] not in (_machine(), platform.node()) or os.name == "nt":  # a kill, there
        return None
    process = int(found[2])
    try:
        if process:
            os.kill(process, 0)
    except (OverflowError, ProcessLookupError):
        return False
    except PermissionError:  # somebody else's, so it lives
        pass
    return bool(process) and (not found[3] or found[3] == _started(process))


def _is_open(name: object, expires: object, now: float) -> bool:
    """Whether somebody waits for the answer to a request. Where the process can be seen, no clock is used."""
    if not isinstance(name, str) or not name or not isinstance(expires, float | int):
        return False
    lives = None if name.startswith(BATCH) else _lives(name)
    if lives and "@" not in name:  # perhaps another one of its number
        lives = None
    return expires > now if lives is None else lives


def release(db: sqlite3.Connection) -> tuple[int, float]:
    """Let go of what killed runs have set aside, once the service can bill it no more; within a transaction.

    What a run has abandoned itself stays: that was sent, and may well be billed.

    Returns:
        How many requests, and what they could have cost, USD.
    """
    now = time.time()
    rows = db.execute("SELECT id, usd, owner, expires FROM reservations WHERE owner != ''").fetchall()
    count, usd = 0, 0.0
    for number, most, name, expires in rows:
        batch = isinstance(name, str) and name.startswith(BATCH)
        known = isinstance(expires, float | int)
        if known and not batch and expires > now + LONGEST_LEASE:  # by a clock that was wrong then, or is now
            db.execute("UPDATE reservations SET expires = ? WHERE id = ?", (now + LONGEST_LEASE, number))
        elif not _is_open(name, expires, now) and (not known or expires + LATE <= now):
            db.execute("DELETE FROM reservations WHERE id = ?", (number,))
            count, usd = count + 1, usd + (most if isinstance(most, float | int) else 0.0)
    return count, usd


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
        f"SELECT owner, expires FROM reservations WHERE {OF_SOURCE} AND clip = ? AND draw = ?",
        (*key, wanted.group),
    ).fetchall()
    for other, expires in others:
        if _is_open(other, expires, now):
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
    # Earlier versions trusted services that count below zero: what they booked so is nothing.
    query = f"SELECT (SELECT total({PAID}) FROM spending), (SELECT total({PAID}) FROM reservations)"
    found: tuple[float, float] = db.execute(query).fetchone()
    return found


def spent(db: sqlite3.Connection) -> dict[Source, tuple[float, float]]:
    """`totals` by source."""
    query = f"""
        SELECT teacher, model, prompt, total(paid), total(open) FROM (
            SELECT teacher, model, prompt, {PAID} AS paid, 0 AS open FROM spending
            UNION ALL SELECT teacher, model, prompt, 0, {PAID} FROM reservations
        ) GROUP BY teacher, model, prompt
    """
    return {Source(*row[:3]): (row[3], row[4]) for row in db.execute(query)}


def forget_the_dead(db: sqlite3.Connection, source: Source | None) -> int:
    """Delete reservations that nobody waits for; returns how many. Within a transaction."""
    rows = db.execute("SELECT id, owner, teacher, model, prompt, expires FROM reservations").fetchall()
    dead = [
        (row[0],)
        for row in rows
        if (source is None or Source(*row[2:5]) == source) and not _is_open(row[1], row[5], time.time())
    ]
    db.executemany("DELETE FROM reservations WHERE id = ?", dead)
    return len(dead)
