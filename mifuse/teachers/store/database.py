"""The draws store: one SQLite file that keeps every answer, whatever kills the process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from mifuse.clips.wal import use_write_ahead_log
from mifuse.errors import DrawsError
from mifuse.teachers.base import Answer, Source
from mifuse.teachers.store import ledger, schema
from mifuse.teachers.store.ledger import OF_SOURCE, Grant, Wanted
from mifuse.teachers.store.room import Room
from mifuse.teachers.store.rows import OpenBatch, Settled, StoredDraw, dimensions_of, key_of, row_of
from mifuse_runtime.shown import shown

_LOGGER = logging.getLogger(__name__)

BUSY_SECONDS = 60.0  # wait this long for another process's transaction

_INSERT = """
INSERT INTO draws (teacher, model, prompt, clip, draw, probs, raw, usage, price_usd, request_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (teacher, model, prompt, clip, draw) DO NOTHING
"""
_INSERT_INVALID = """
INSERT OR REPLACE INTO invalid
    (teacher, model, prompt, clip, draw, problem, attempt, raw, usage, price_usd, request_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_DIMENSIONS = "INSERT OR IGNORE INTO dimensions VALUES (?, ?, ?, ?, ?, ?)"
_KNOWN_INVALID = f"SELECT count(*) FROM invalid WHERE {OF_SOURCE} AND clip = ? AND draw = ? AND attempt = ?"
_SPEND = """
INSERT INTO spending (teacher, model, prompt, usd) VALUES (?, ?, ?, ?)
ON CONFLICT (teacher, model, prompt) DO UPDATE SET usd = usd + excluded.usd
"""

# Part of SQLite's message -> what to do.
_NEXT_STEPS = {
    "not a database": "name a draws store; JSONL goes in with `mifuse draws import`",
    "malformed": "it is damaged, save it with `sqlite3 FILE .recover` or use a copy",
    "full": "make room and run again, what was stored is kept",
    "locked": f"another process has held it for {BUSY_SECONDS:.0f} s, try again",
    "readonly": "copy it to where you may write",
    "disk I/O": "the disk does not take it, look after it and run again, what was stored is kept",
    "no such": "it is damaged, save it with `sqlite3 FILE .recover` or use a copy",
    "unable to open": "check the path and your rights to the folder",
}


class DrawsStore:
    """The draws of any number of teachers, in one file that several processes may share.

    A draw is safe (on the disk, through a power cut) when `add` returns.

    Args:
        path: the SQLite file.
        read_only: do not create or change it; it may then lie in a read-only folder.

    Raises:
        DrawsError: missing, damaged, not a draws store, or written by a newer mifuse.
    """

    def __init__(self, path: Path | str, read_only: bool = False) -> None:
        self.path = Path(path)
        self._adding = threading.Lock()
        self._room = Room()
        if not self.path.parent.is_dir():
            raise DrawsError(f"{self.path}: no such folder {str(self.path.parent)!r}: make it first")
        if read_only and not self.path.exists():
            raise DrawsError(f"{self.path}: no such draws store: get draws with `mifuse label`")
        with self._one_line_errors():
            self._db = sqlite3.connect(
                self._uri(read_only),
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,  # `add` has a lock of its own
            )
            try:
                self._open(read_only)
            except BaseException:
                self._db.close()
                raise

    def _uri(self, read_only: bool) -> str:
        uri = self.path.resolve().as_uri()
        if not read_only:
            return f"{uri}?mode=rwc"
        if os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK):
            return f"{uri}?mode=rw"  # `ro` would leave files of the write-ahead log behind
        # Without a log beside it nobody writes, and SQLite need not make files in a read-only folder.
        writing = Path(f"{self.path}-wal").exists()
        return f"{uri}?mode=ro" if writing else f"{uri}?mode=ro&immutable=1"

    def _open(self, read_only: bool) -> None:
        found = schema.version(self._db)
        if found is None:
            raise DrawsError(f"{self.path}: a database, but not a draws store: name another file")
        if found > schema.SCHEMA:
            raise DrawsError(
                f"{self.path}: has schema {found}, this mifuse knows up to {schema.SCHEMA}: "
                "update mifuse to use it"
            )
        if found == 0:
            if read_only:
                raise DrawsError(f"{self.path}: is empty: get draws with `mifuse label`")
            use_write_ahead_log(self._db, BUSY_SECONDS)
        if found < schema.SCHEMA:
            with self._transaction("DEFERRED" if read_only else "IMMEDIATE"):
                schema.upgrade(self._db, temporary=read_only)  # nothing is left when another was faster
        self._db.execute("PRAGMA synchronous = FULL")  # WAL's usual NORMAL loses commits in a power cut

    def __enter__(self) -> DrawsStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the last process to do so folds the write-ahead log into it."""
        self._room.give()
        self._db.close()

    def add(self, draws: Iterable[StoredDraw]) -> int:
        """Store draws that nothing is owed for, in one transaction; see `settle`."""
        rows = list(draws)
        return self.settle([Settled(rows[0].source, None, draws=rows)]) if rows else 0

    def settle(self, outcomes: Iterable[Settled]) -> int:
        """Store answers with what they cost and drop their reservations: one transaction, all or none.

        Draws that are there already stay as they are. Where the disk is full, what `reserve` has kept free of
        it is used.

        Returns:
            How many draws were new.

        Raises:
            DrawsError: nothing was stored (full disk, damaged file, locked for a minute).
        """
        rows = [
            (
                one,
                [row_of(draw.source, draw) for draw in one.draws],
                [row_of(one.source, bad) for bad in one.invalid],
            )
            for one in outcomes
        ]
        try:
            return self._settle(rows)
        except DrawsError as error:
            if not (isinstance(error.__cause__, sqlite3.OperationalError) and self._room.give()):
                raise
            return self._settle(rows)

    def _settle(
        self, rows: Sequence[tuple[Settled, list[tuple[object, ...]], list[tuple[object, ...]]]]
    ) -> int:
        added = 0
        with self._writing():
            for one, draws, invalid in rows:
                before = self._db.total_changes
                self._db.executemany(_INSERT, draws)
                new = self._db.total_changes - before
                added += new
                numbers = [dimensions_of(draw) for draw in one.draws if draw.answer.dimensions]
                self._db.executemany(_INSERT_DIMENSIONS, numbers)
                known = sum(
                    self._db.execute(_KNOWN_INVALID, (*row[:5], row[6])).fetchone()[0] for row in invalid
                )
                self._db.executemany(_INSERT_INVALID, invalid)
                gone = self._db.execute("DELETE FROM reservations WHERE id = ?", (one.reservation,)).rowcount
                # Two processes may collect one batch, whose price is paid once. A reservation may be gone
                # because a clock has jumped: what is new is paid all the same.
                if one.usd and (gone or one.reservation is None or new or known < len(invalid)):
                    self._db.execute(_SPEND, (*key_of(one.source), one.usd))
        return added

    def reserve(
        self, wanted: Sequence[Wanted], budget: float | None, owner: str, lease: float
    ) -> list[Grant]:
        """Ask leave for requests, in one transaction; what is granted is on the disk before it is sent.

        A request that could take the store's spending past `budget` is refused, where each request that is
        open, in any process, counts with the most that it can cost. So does one that was open when its
        process was killed, as long as the service may still bill it; then it is let go of, which is said.

        Args:
            budget: USD, of the whole store; None is no bound.
            owner: who waits for the answers: `ledger.owner()`, or a batch.
            lease: seconds after which `owner` counts as gone.
        """
        try:
            self._room.keep(self.path.parent)
        except OSError as error:
            raise DrawsError(
                f"{self.path.parent}: no room for answers ({error.strerror or error}): "
                "make room and run again, what was stored is kept"
            ) from error
        with self._writing():
            count, usd = ledger.release(self._db)
            grants = ledger.reserve(self._db, wanted, budget, owner, lease)
        if count:
            _LOGGER.warning(
                "%d requests of killed runs are no longer set aside for, $%.4g at most: "
                "see the service's bill for whether it was paid", count, usd,
            )  # fmt: skip
        return grants

    def abandon(self, reservation: int) -> None:
        """Nobody waits for this request any more, and whether it was billed is unknown: it still counts."""
        with self._writing():
            self._db.execute("UPDATE reservations SET owner = '' WHERE id = ?", (reservation,))

    def spent(self) -> dict[Source, tuple[float, float]]:
        """USD by source: what answers have cost, and the most that unsettled requests can cost."""
        with self._one_line_errors():
            return ledger.spent(self._db)

    def total(self) -> float:
        """USD of the whole store, unsettled requests among them."""
        with self._one_line_errors():
            return sum(ledger.totals(self._db))

    def open_batch(self, source: Source) -> int:
        """A new batch, before anything is reserved for it; returns its number."""
        columns = "teacher, model, prompt, requests, sender, created"
        with self._writing():
            values = (*key_of(source), 0, ledger.owner(), time.time())
            row = self._db.execute(f"INSERT INTO batches ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
        return int(row.lastrowid or 0)

    def name_batch(self, number: int, name: str | None, requests: int) -> None:
        """What is known of a batch: its size before it is sent, the service's name after that."""
        with self._writing():
            values = (name, requests, number)
            self._db.execute("UPDATE batches SET id = ?, requests = ? WHERE number = ?", values)

    def close_batch(self, number: int) -> None:
        """Nothing more comes of this batch; what is still reserved for it counts, as after `abandon`."""
        with self._writing():
            owner = (ledger.batch_owner(number),)
            self._db.execute("UPDATE reservations SET owner = '' WHERE owner = ?", owner)
            self._db.execute("DELETE FROM batches WHERE number = ?", (number,))

    def batches(self, source: Source) -> list[OpenBatch]:
        """The open batches of a source."""
        query = f"SELECT number, id, requests, sender, created FROM batches WHERE {OF_SOURCE} ORDER BY number"
        with self._one_line_errors():
            return [OpenBatch(*row) for row in self._db.execute(query, key_of(source))]

    def reserved_by(self, owner: str) -> dict[int, tuple[str, int]]:
        """Reservation -> content hash and number of the draw that it is for."""
        query = "SELECT id, clip, draw FROM reservations WHERE owner = ?"
        with self._one_line_errors():
            return {row[0]: (row[1], row[2]) for row in self._db.execute(query, (owner,))}

    def mean_price(self, source: Source) -> float | None:
        """USD of a request of this source so far; None before the first."""
        query = f"SELECT avg(price_usd) FROM draws WHERE {OF_SOURCE} AND usage IS NOT NULL"
        with self._one_line_errors():
            found: float | None = self._db.execute(query, key_of(source)).fetchone()[0]
        return found

    def may_send_to(self, host: str) -> bool:
        """Whether the user has agreed to send to this host before."""
        with self._one_line_errors():
            return self._db.execute("SELECT 1 FROM consents WHERE host = ?", (host,)).fetchone() is not None

    def agree_to(self, host: str) -> None:
        """Remember that the user has."""
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO consents (host) VALUES (?)", (host,))

    def prune(self, source: Source | None, what: Literal["draws", "invalid", "reservations"]) -> int:
        """Delete rows, of one source or of all; what they cost stays spent, but for reservations."""
        where, key = (f"WHERE {OF_SOURCE}", key_of(source)) if source else ("WHERE TRUE", ())
        with self._writing():
            if what == "reservations":
                return ledger.forget_the_dead(self._db, source)
            sources = [source] if source else self._sources(what)
            self._db.executemany(_SPEND, [(*key_of(one), 0.0) for one in sources])
            self._db.execute(f"UPDATE spending SET prunes = prunes + 1 {where}", key)
            if what == "draws":
                self._db.execute(f"DELETE FROM dimensions {where}", key)
            return self._db.execute(f"DELETE FROM {what} {where}", key).rowcount

    def prunes(self, source: Source) -> int:
        """How often answers of a source were deleted: what is asked after that is asked anew."""
        query = f"SELECT total(prunes) FROM spending WHERE {OF_SOURCE}"
        with self._one_line_errors():
            return int(self._db.execute(query, key_of(source)).fetchone()[0])

    def attempts(self, source: Source) -> dict[tuple[str, int], int]:
        """How many invalid answers each draw had, by content hash and number; draws without are left out."""
        query = f"SELECT clip, draw, max(attempt) + 1 FROM invalid WHERE {OF_SOURCE} GROUP BY clip, draw"
        with self._one_line_errors():
            return {(clip, draw): count for clip, draw, count in self._db.execute(query, key_of(source))}

    def problems(self, source: Source) -> dict[str, int]:
        """What was wrong with the invalid answers -> how many, the most frequent first."""
        query = (
            f"SELECT problem, count(*) AS n FROM invalid WHERE {OF_SOURCE} GROUP BY problem ORDER BY n DESC"
        )
        with self._one_line_errors():
            return dict(self._db.execute(query, key_of(source)).fetchall())

    def sources(self) -> list[Source]:
        """Whose draws are here, sorted."""
        with self._one_line_errors():
            return self._sources("draws")

    def _sources(self, table: str) -> list[Source]:
        rows = self._db.execute(f"SELECT DISTINCT teacher, model, prompt FROM {table}").fetchall()
        for row in rows:
            if not all(isinstance(part, str) for part in row) or not row[0]:
                raise ValueError(f"in {table}, the teacher {row!r} is no name")
        return sorted(Source(*row) for row in rows)

    def keys(self, source: Source) -> set[tuple[str, int]]:
        """Content hash and number of each draw of a source."""
        with self._one_line_errors():
            return set(self._db.execute(f"SELECT clip, draw FROM draws WHERE {OF_SOURCE}", key_of(source)))

    def draws(self, source: Source) -> Iterator[StoredDraw]:
        """The draws of a source, by clip and number."""
        columns = "clip, draw, probs, raw, usage, price_usd, request_id, said"
        both = "draws LEFT JOIN dimensions USING (teacher, model, prompt, clip, draw)"
        query = f"SELECT {columns} FROM {both} WHERE {OF_SOURCE} ORDER BY clip, draw"
        with self._one_line_errors():
            for clip, draw, probs, raw, usage, price, request, said in self._db.execute(
                query, key_of(source)
            ):
                used = None if usage is None else json.loads(usage)
                found, numbers = json.loads(probs), {} if said is None else json.loads(said)
                if not isinstance(found, dict) or not isinstance(clip, str) or not isinstance(draw, int):
                    raise ValueError(f"draw {draw!r} of clip {clip!r} has the probabilities {probs!r}")
                if not isinstance(numbers, dict):
                    raise ValueError(f"draw {draw!r} of clip {clip!r} has the dimensions {said!r}")
                yield StoredDraw(source, clip, draw, Answer(found, raw, used, price, request, numbers))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._adding, self._one_line_errors(), self._transaction():
            yield

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        self._db.execute(f"BEGIN {kind}")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled back already
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            step = next(
                (step for part, step in _NEXT_STEPS.items() if part in str(error)), "try a copy of it"
            )
            raise DrawsError(f"{self.path}: draws store unusable ({error}): {step}") from error
        except json.JSONDecodeError as error:
            raise DrawsError(f"{self.path}: a row is not JSON ({error}): it was changed by hand") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise DrawsError(
                f"{self.path}: a row is not as mifuse writes it ({shown(error, 200)}): it was changed by "
                "hand, use a copy or delete the row"
            ) from error
