import sqlite3
import subprocess
import sys

import pytest

from mifuse.clips.wal import use_write_ahead_log

OPEN = """
import sqlite3, sys
from mifuse.clips.wal import use_write_ahead_log
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
use_write_ahead_log(db, 60)
db.execute("CREATE TABLE IF NOT EXISTS t (x)")
"""


def test_it_waits_for_the_lock(tmp_path):
    first, second = (sqlite3.connect(tmp_path / "a.db", isolation_level=None, timeout=0) for _ in range(2))
    first.execute("CREATE TABLE t (x)")
    first.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        use_write_ahead_log(second, 0.1)
    first.execute("COMMIT")
    use_write_ahead_log(second, 0.1)
    first.execute("INSERT INTO t VALUES (1)")
    assert (tmp_path / "a.db-wal").exists()


def test_what_is_no_lock_is_said_at_once(tmp_path):
    (tmp_path / "a.db").write_bytes(b"no database" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        use_write_ahead_log(sqlite3.connect(tmp_path / "a.db"), 60)


def test_processes_that_open_a_new_file_together(tmp_path):
    command = [sys.executable, "-c", OPEN, str(tmp_path / "new.db")]
    together = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(6)]
    assert [process.communicate()[1] for process in together] == [b""] * 6
