"""Stores that are damaged, full, or under a wrong clock: one line each, nothing that is paid is lost."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from draws_files import probs

from mifuse.cli import main
from mifuse.errors import DrawsError
from mifuse.teachers.base import Answer, Source
from mifuse.teachers.store import ledger
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.ledger import Wanted, is_waiting, owner
from mifuse.teachers.store.rows import Settled, StoredDraw

A = Source("a")
DEAD = f"{owner().rpartition(':')[0]}:{2**22 + 1}"
LEASE = 900.0


def wanted(draw: int = 0, usd: float = 1.0) -> Wanted:
    return Wanted(A, "c0", (draw,), draw, usd)


def draw(number: int = 0) -> StoredDraw:
    return StoredDraw(A, "c0", number, Answer(probs(0, number), price_usd=0.1))


@pytest.fixture
def store(tmp_path: Path) -> DrawsStore:
    return DrawsStore(tmp_path / "d.db")


def jump(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    real = time.time
    monkeypatch.setattr(ledger.time, "time", lambda: real() + seconds)


def test_what_killed_runs_set_aside_comes_free(
    store: DrawsStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.reserve([wanted(i, 0.07) for i in range(70)], 5.0, DEAD, LEASE)
    assert store.reserve([wanted(92, 0.2)], 5.0, owner(), LEASE)[0].refused == "budget"
    with monkeypatch.context() as patch:
        jump(patch, LEASE + ledger.LATE + 1)
        assert store.reserve([wanted(92, 0.2)], 5.0, owner(), LEASE)[0].id is not None
    assert "70 requests of killed runs are no longer set aside for, $4.9 at most" in caplog.text
    assert store.total() == pytest.approx(0.2)


def test_what_a_run_gave_up_itself_stays(store: DrawsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was sent: a service that bills and never answers must not be paid without end."""
    store.abandon(store.reserve([wanted()], None, owner(), LEASE)[0].id or 0)
    jump(monkeypatch, 100 * LEASE)
    assert store.reserve([wanted(1, 1.0)], 1.5, owner(), LEASE)[0].refused == "budget"


@pytest.mark.parametrize("seconds", [-1e9, -3600.0, 3600.0, 1e9])
def test_clocks_that_jump(store: DrawsStore, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    grant = store.reserve([wanted(usd=0.5)], 1.0, owner(), LEASE)[0]
    jump(monkeypatch, seconds)
    # We live, whatever the clock says: nobody asks the same, and the answer is paid.
    assert store.reserve([wanted()], None, owner(), LEASE)[0].refused == "taken"
    assert store.total() == pytest.approx(0.5)
    assert store.settle([Settled(A, grant.id, 0.1, [draw()])]) == 1
    assert store.spent() == {A: (pytest.approx(0.1), 0.0)}


def test_a_reservation_of_a_wrong_clock_ends(store: DrawsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.reserve([wanted()], None, "another-machine:7", 1e12)
    store.reserve([wanted(1)], None, owner(), LEASE)
    jump(monkeypatch, ledger.LONGEST_LEASE + ledger.LATE + 1)
    assert store.reserve([wanted()], 10.0, owner(), LEASE)[0].id is not None


def test_an_answer_is_paid_though_its_reservation_is_gone(store: DrawsStore) -> None:
    grant = store.reserve([wanted()], None, owner(), LEASE)[0]
    with sqlite3.connect(store.path) as db:
        db.execute("DELETE FROM reservations")
    store.settle([Settled(A, grant.id, 0.3, [draw()])])
    assert store.total() == pytest.approx(0.3)
    store.settle([Settled(A, grant.id, 0.3, [draw()])])  # the same again: paid once
    assert store.total() == pytest.approx(0.3)


@pytest.mark.parametrize(
    "name",
    ["", "x", ":", "a:b:c", f"{platform.node()}:99999999999999999999", "batch:x", "\0:1", "é:1", ":-1"],
)
def test_owners_that_are_none(store: DrawsStore, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_waiting(name) in (True, False)
    store.reserve([wanted(usd=0.4)], None, owner(), LEASE)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE reservations SET owner = ?", (name,))
    assert store.reserve([wanted()], None, owner(), LEASE)[0].refused in ("", "taken", "batch")
    for column, value in (
        ("owner", b"\xff"),
        ("expires", "soon"),
        ("expires", float("inf")),
        ("usd", "much"),
    ):
        with sqlite3.connect(store.path) as db:
            db.execute(f"UPDATE reservations SET {column} = ?", (value,))
        assert store.reserve([wanted(3)], 1e9, owner(), LEASE)
    assert store.total() >= 0


def test_another_process_of_the_same_number(store: DrawsStore) -> None:
    mine = owner()
    assert is_waiting(mine) and ("@" in mine or not Path("/proc").exists())
    if "@" in mine:
        assert not is_waiting(mine.rpartition("@")[0] + "@1")
    # A machine of the same name that is another one: its processes are not looked for here.
    assert is_waiting(f"{platform.node()}.0123456789ab:{2**22 + 1}")


def test_spending_below_zero_is_none(store: DrawsStore) -> None:
    with sqlite3.connect(store.path) as db:
        db.execute("INSERT INTO spending (teacher, model, prompt, usd) VALUES ('a', '', '', -4000)")
    assert store.total() == 0.0
    assert store.reserve([wanted(usd=0.6)], 0.5, owner(), LEASE)[0].refused == "budget"


def spoil(sql: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        db = sqlite3.connect(path)
        db.execute(sql)
        db.commit()
        db.close()

    return change


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def noise(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": cut,
    "noise": noise,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"path,teacher\n" * 1000),
    "no table": spoil("DROP TABLE draws"),
    "teacher is gone": spoil("UPDATE draws SET teacher = ''"),
    "teacher is bytes": spoil("UPDATE draws SET teacher = x'ff00'"),
    "probs are none": spoil("UPDATE draws SET probs = '7'"),
    "probs are no JSON": spoil("UPDATE draws SET probs = '{'"),
    "clip is bytes": spoil("UPDATE draws SET clip = x'ff' WHERE clip = 'c7'"),
    "usage is a list": spoil("UPDATE draws SET usage = '[1]'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", [["info"], ["export"]])
def test_damaged_stores(tmp_path: Path, damage: str, command: list[str]) -> None:
    with DrawsStore(tmp_path / "d.db") as made:
        made.add(StoredDraw(A, f"c{i}", 0, Answer(probs(0, 0), "raw" * 99)) for i in range(200))
    DAMAGE[damage](tmp_path / "d.db")
    (tmp_path / "m.csv").write_text("path\n")
    more = {"info": [], "export": [str(tmp_path / "m.csv"), str(tmp_path / "out.jsonl")]}[command[0]]
    done = CliRunner().invoke(main, ["draws", *command, str(tmp_path / "d.db"), *more])
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert done.exit_code == 0 or len(done.output.strip().splitlines()) <= 4, done.output


def test_an_index_that_differs_from_its_table(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    with DrawsStore(path) as made:
        made.add(StoredDraw(Source("listed"), f"c{i}", 0, Answer(probs(0, 0))) for i in range(300))
    content, outputs = path.read_bytes(), []
    for found in list(re.finditer(b"listed", content))[::20]:
        path.write_bytes(content[: found.start()] + b"Listed" + content[found.end() :])
        done = CliRunner().invoke(main, ["draws", "info", str(path)])
        assert isinstance(done.exception, SystemExit | None), done.exception
        outputs.append(done.output)
    assert any("listed but not found" in output for output in outputs)


@pytest.mark.parametrize("end", [0, 32, 4000, -1, None])
def test_a_log_that_was_cut(tmp_path: Path, end: int | None) -> None:
    """What was folded into the file is there; what stood in the log alone is there or not, row by row."""
    with DrawsStore(tmp_path / "d.db") as made:
        made.add([draw(0)])
        made._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for i in range(1, 20):
            made.add([draw(i)])
        copy = tmp_path / "copy.db"
        copy.write_bytes((tmp_path / "d.db").read_bytes())
        log = (tmp_path / "d.db-wal").read_bytes()
        if end is not None:
            Path(f"{copy}-wal").write_bytes(log[:end])
        assert len(log) > 10_000
    with DrawsStore(copy) as found:
        assert ("c0", 0) in found.keys(A)
        assert {key[1] for key in found.keys(A)} == set(range(len(found.keys(A))))
        found.add([draw(50)])


def test_a_full_disk_at_any_write(tmp_path: Path) -> None:
    """The store may take so many pages more, and no more: what it says is stored is stored."""
    for room in range(8):
        path = tmp_path / f"{room}.db"
        with DrawsStore(path) as made:
            made.add([draw(0)])
            pages = made._db.execute("PRAGMA page_count").fetchone()[0]
            made._db.execute(f"PRAGMA max_page_count = {pages + room}")
            stored, refused = {0}, ""
            for i in range(1, 200):
                row = StoredDraw(A, "c0", i, Answer(probs(0, i), "words " * 200, price_usd=0.1))
                try:
                    made.settle([Settled(A, None, 0.1, [row])])
                except DrawsError as error:
                    refused = str(error)
                    break
                stored.add(i)
        assert "make room and run again" in refused and "\n" not in refused
        with DrawsStore(path) as again:
            assert {key[1] for key in again.keys(A)} == stored
            assert again.total() == pytest.approx(0.1 * (len(stored) - 1))


# Fills the disk while eight requests are open; prints how many it answered, how many are lost, USD.
FULL = """
import asyncio, sys
from pathlib import Path
from mifuse.errors import DrawsError
from mifuse.teachers.base import Reply, Said, Source
from mifuse.teachers.labelling import label_clips
from mifuse.teachers.prices import Price
from mifuse.teachers.questions import Question
from mifuse.teachers.store.database import DrawsStore

disk, answered, full = Path(sys.argv[1]), [], []

class Service:
    source, concurrency, deadline, per_request = Source("a"), 8, 60.0, 1

    def most_usage(self, clip, draws):
        return {"output": 100}

    async def ask(self, clip, draws, attempt, key):
        await asyncio.sleep(0.05)
        if len(answered) >= 40 and not full:  # once: what the store lets go of is its own
            full.append(True)
            await asyncio.to_thread(fill)
        answered.extend(draws)
        probs = {"angry": 1, "happy": 0, "neutral": 0, "sad": 0}
        return Reply([Said("words " * 500, probs)], {"output": 100})

def fill():
    try:
        with (disk / "log").open("ab", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
    except OSError:
        pass

with DrawsStore(disk / "d.db") as store:
    questions = [Question(None, "c", i) for i in range(10_000)]
    try:
        asyncio.run(label_clips(Service(), questions, store, price=Price(0.0, 10_000.0, 0.0, 0.0, 0.0)))
    except DrawsError as error:
        print(error)
with DrawsStore(disk / "d.db", read_only=True) as store:
    kept = {draw for _, draw in store.keys(Source("a"))}
    print(len(answered), len(set(answered) - kept), round(store.total(), 6))
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="a small disk of its own needs Linux")
def test_answers_on_their_way_when_the_disk_is_full(tmp_path: Path) -> None:
    mounted = [
        "unshare",
        "-Urm",
        "sh",
        "-c",
        'mount -t tmpfs -o size=16m none "$0" && exec "$@"',
        str(tmp_path),
    ]
    if subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    done = subprocess.run(
        [*mounted, sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said, counts = done.stdout.splitlines()
    assert "make room and run again" in said
    answered, lost, usd = map(float, counts.split())
    assert answered >= 48 and lost == 0
    assert usd == pytest.approx(answered)  # $1 each, nothing is set aside any more


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path, store: DrawsStore) -> None:
    store.close()
    tmp_path.chmod(0o500)
    try:
        with (
            pytest.raises(DrawsError, match=r"copy it to where you may write|your rights") as caught,
            DrawsStore(store.path) as opened,
        ):
            opened.add([draw()])
        assert "\n" not in str(caught.value)
    finally:
        tmp_path.chmod(0o700)
