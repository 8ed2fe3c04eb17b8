"""SQLite files that several processes open at once."""

from __future__ import annotations

import sqlite3
import time


def use_write_ahead_log(db: sqlite3.Connection, seconds: float) -> None:
    """Readers and one writer at a time. SQLite does not wait for its lock in this one statement.

    Raises:
        sqlite3.OperationalError: the file cannot be written, or is still locked after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:  # noqa: PERF203 - it is there to be tried again
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
