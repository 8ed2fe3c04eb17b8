"""The draws store: one SQLite file that keeps every answer, whatever kills the process."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mifuse.errors import DrawsError
from mifuse.teachers.base import Answer, Source

APPLICATION_ID = 0x4D694675  # "MiFu", in the header of the file
SCHEMA = 1
BUSY_SECONDS = 60.0  # wait this long for another process's transaction

_TABLE = """
CREATE TABLE draws (
    teacher TEXT NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,      -- hash
    clip TEXT NOT NULL,        -- hash of the content
    draw INTEGER NOT NULL,
    probs TEXT NOT NULL,       -- JSON, label -> probability, as the teacher said it
    raw TEXT,
    usage TEXT,                -- JSON
    price_usd REAL,
    request_id TEXT,
    created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    PRIMARY KEY (teacher, model, prompt, clip, draw)
)
"""
_INSERT = """
INSERT INTO draws (teacher, model, prompt, clip, draw, probs, raw, usage, price_usd, request_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (teacher, model, prompt, clip, draw) DO NOTHING
"""
_FROM_SOURCE = "FROM draws WHERE teacher = ? AND model = ? AND prompt = ?"

# Part of SQLite's message -> what to do.
_NEXT_STEPS = {
    "not a database": "name a draws store; JSONL goes in with `mifuse draws import`",
    "malformed": "it is damaged, save it with `sqlite3 FILE .recover` or use a copy",
    "full": "make room and run again, what was stored is kept",
    "locked": f"another process has held it for {BUSY_SECONDS:.0f} s, try again",
    "readonly": "copy it to where you may write",
    "unable to open": "check the path and your rights to the folder",
}


@dataclass(frozen=True)
class StoredDraw:
    """One row: draw `draw` of `source` for the clip with the content hash `clip`."""

    source: Source
    clip: str
    draw: int
    answer: Answer


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
        if self._is_blank():
            if read_only:
                raise DrawsError(f"{self.path}: is empty: get draws with `mifuse label`")
            self._use_write_ahead_log()
            with self._transaction():
                if self._is_blank():  # another process may have been faster
                    self._db.execute(_TABLE)
                    self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    self._db.execute(f"PRAGMA user_version = {SCHEMA}")
        self._check_schema()
        self._db.execute("PRAGMA synchronous = FULL")  # WAL's usual NORMAL loses commits in a power cut

    def _use_write_ahead_log(self) -> None:
        """Readers and one writer at a time. SQLite does not wait for its lock in this one statement."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:  # noqa: PERF203 - it is there to be tried again
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _is_blank(self) -> bool:
        tables: int = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return tables == 0

    def _check_schema(self) -> None:
        application: int = self._db.execute("PRAGMA application_id").fetchone()[0]
        schema: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise DrawsError(f"{self.path}: a database, but not a draws store: name another file")
        if schema > SCHEMA:
            raise DrawsError(
                f"{self.path}: has schema {schema}, this mifuse knows up to {SCHEMA}: update mifuse to use it"
            )

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
        self._db.close()

    def add(self, draws: Iterable[StoredDraw]) -> int:
        """Store draws in one transaction, all or none; those that are there already stay as they are.

        Returns:
            How many were new.

        Raises:
            DrawsError: nothing was stored (full disk, damaged file, locked for a minute).
        """
        rows = [_row(draw) for draw in draws]
        with self._adding, self._one_line_errors(), self._transaction():
            before = self._db.total_changes
            self._db.executemany(_INSERT, rows)
            return self._db.total_changes - before

    def sources(self) -> list[Source]:
        """Whose draws are here, sorted."""
        with self._one_line_errors():
            rows = self._db.execute("SELECT DISTINCT teacher, model, prompt FROM draws").fetchall()
        return sorted(Source(*row) for row in rows)

    def keys(self, source: Source) -> set[tuple[str, int]]:
        """Content hash and number of each draw of a source."""
        with self._one_line_errors():
            return set(self._db.execute(f"SELECT clip, draw {_FROM_SOURCE}", _key(source)))

    def draws(self, source: Source) -> Iterator[StoredDraw]:
        """The draws of a source, by clip and number."""
        columns = "clip, draw, probs, raw, usage, price_usd, request_id"
        query = f"SELECT {columns} {_FROM_SOURCE} ORDER BY clip, draw"
        with self._one_line_errors():
            for clip, draw, probs, raw, usage, price, request in self._db.execute(query, _key(source)):
                used = None if usage is None else json.loads(usage)
                yield StoredDraw(source, clip, draw, Answer(json.loads(probs), raw, used, price, request))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
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


def _key(source: Source) -> tuple[str, str, str]:
    return source.teacher, source.model, source.prompt


def _row(draw: StoredDraw) -> tuple[object, ...]:
    answer = draw.answer
    usage = None if answer.usage is None else json.dumps(dict(answer.usage))
    probs = json.dumps(dict(answer.probs))
    return (
        *_key(draw.source), draw.clip, draw.draw,
        probs, answer.raw, usage, answer.price_usd, answer.request_id,
    )  # fmt: skip
