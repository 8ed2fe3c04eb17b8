"""Money: what is set aside before a request, who may send it, and that no budget is ever passed."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest
from draws_files import probs

from mifuse.errors import DrawsError
from mifuse.teachers.base import Answer, Invalid, Source
from mifuse.teachers.store import ledger, schema
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.ledger import Grant, Wanted, batch_owner, is_waiting, owner
from mifuse.teachers.store.rows import Settled, StoredDraw, StoredInvalid

A, B = Source("a"), Source("b", "large", "f00d")
ELSEWHERE = "another-machine:1"
DEAD = f"{owner().rpartition(':')[0]}:{2**22 + 1}"  # above the largest process number


def wanted(draw: int = 0, usd: float = 1.0, source: Source = A, clip: str = "c0") -> Wanted:
    return Wanted(source, clip, (draw,), draw, usd)


def draw(number: int = 0, price: float | None = None) -> StoredDraw:
    return StoredDraw(A, "c0", number, Answer(probs(0, number), price_usd=price))


@pytest.fixture
def store(tmp_path: Path) -> DrawsStore:
    return DrawsStore(tmp_path / "d.db")


def test_nothing_is_granted_that_could_pass_the_budget(store: DrawsStore) -> None:
    grants = store.reserve([wanted(i, 0.4) for i in range(4)], 1.0, owner(), 60)
    assert [grant.refused for grant in grants] == ["", "", "budget", "budget"]
    # A cheaper one still fits, in another process too.
    with DrawsStore(store.path) as other:
        assert other.reserve([wanted(7, 0.3, B), wanted(8, 0.2, B)], 1.0, owner(), 60)[1].id is not None
    assert store.total() == pytest.approx(1.0)
    assert store.reserve([wanted(9, 1e-6)], 1.0, owner(), 60)[0].refused == "budget"
    assert store.reserve([wanted(9, 0.0)], 1.0, owner(), 60)[0].id is not None
    assert store.reserve([wanted(10, 0.0)], float("nan"), owner(), 60)[0].refused == "budget"


def test_settling_pays_the_price_and_frees_the_rest(store: DrawsStore) -> None:
    first, second = store.reserve([wanted(0, 0.5), wanted(1, 0.5)], 1.0, owner(), 60)
    assert store.settle([Settled(A, first.id, 0.1, [draw(0, 0.1)])]) == 1
    assert store.spent() == {A: (pytest.approx(0.1), 0.5)}
    store.settle([Settled(A, second.id)])  # not billed
    assert store.spent() == {A: (pytest.approx(0.1), 0.0)}
    # An invalid answer is paid like any other.
    third = store.reserve([wanted(2, 0.9)], 1.0, owner(), 60)[0]
    bad = Invalid("empty", 0, "", {"output": 4}, 0.2)
    store.settle([Settled(A, third.id, 0.2, invalid=[StoredInvalid("c0", 2, bad)])])
    assert store.total() == pytest.approx(0.3)
    assert store.attempts(A) == {("c0", 2): 1}
    assert store.problems(A) == {"empty": 1}


def test_what_two_processes_collect_is_paid_once(store: DrawsStore) -> None:
    grant = store.reserve([wanted(0, 0.5)], None, batch_owner(1), 60)[0]
    assert [store.settle([Settled(A, grant.id, 0.3, [draw(0, 0.3)])]) for _ in range(2)] == [1, 0]
    assert store.spent() == {A: (0.3, 0.0)}


def test_an_answer_and_its_price_are_stored_together_or_not_at_all(store: DrawsStore) -> None:
    grant = store.reserve([wanted()], None, owner(), 60)[0]
    broken = StoredDraw(A, None, 0, Answer(probs(0, 0)))  # type: ignore[arg-type]
    with pytest.raises(DrawsError):
        store.settle([Settled(A, grant.id, 0.5, [draw(), broken])])
    assert store.spent() == {A: (0.0, 1.0)}
    assert store.keys(A) == set()


def test_two_processes_never_ask_the_same(store: DrawsStore) -> None:
    first = store.reserve([wanted(), wanted(source=B), wanted(clip="c1")], None, ELSEWHERE, 60)
    assert all(grant.id for grant in first)
    assert store.reserve([wanted()], None, owner(), 60) == [Grant(None, (0,), "taken")]
    # Draws of one prompt are one question, whichever of them is asked for.
    pair = Wanted(A, "c2", (4, 5), 4)
    assert store.reserve([pair], None, ELSEWHERE, 60)[0].id
    assert store.reserve([Wanted(A, "c2", (5,), 4)], None, owner(), 60)[0].refused == "taken"
    store.settle([Settled(A, first[0].id, 0.1, [draw()])])
    assert store.reserve([wanted()], None, owner(), 60) == [Grant(None, ())]


def test_what_a_dead_process_asked_is_asked_again_but_its_money_stays_set_aside(store: DrawsStore) -> None:
    store.reserve([wanted(usd=0.4)], 1.0, DEAD, 60)
    store.reserve([wanted(1, usd=0.1)], 1.0, ELSEWHERE, -1)  # its lease is over
    again = store.reserve([wanted(usd=0.4), wanted(1, usd=0.1)], 1.0, owner(), 60)
    assert all(grant.id for grant in again)
    assert store.total() == pytest.approx(1.0)
    assert store.prune(None, "reservations") == 2
    assert store.total() == pytest.approx(0.5)


def test_an_abandoned_request_counts_and_blocks_nobody(store: DrawsStore) -> None:
    grant = store.reserve([wanted(usd=0.4)], None, owner(), 60)[0]
    store.abandon(grant.id or 0)
    assert store.spent() == {A: (0.0, 0.4)}
    assert store.reserve([wanted(usd=0.4)], None, owner(), 60)[0].id


def test_who_is_waiting() -> None:
    assert is_waiting(owner()) and is_waiting(ELSEWHERE) and is_waiting(batch_owner(3))
    assert is_waiting(f"{owner().rpartition(':')[0]}:{os.getppid()}")
    assert not is_waiting(DEAD) and not is_waiting("")


def test_pruned_answers_stay_paid_and_are_asked_anew(store: DrawsStore) -> None:
    grant = store.reserve([wanted()], None, owner(), 60)[0]
    store.settle([Settled(A, grant.id, 0.5, [draw(0, 0.5)])])
    assert store.prunes(A) == 0
    assert store.prune(A, "draws") == 1
    assert (store.keys(A), store.total(), store.prunes(A), store.prunes(B)) == (set(), 0.5, 1, 0)


# Files of schema 1, as earlier versions wrote them


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    db = sqlite3.connect(path)
    for statement in schema._STEPS[0]:
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")
    columns = "teacher, model, prompt, clip, draw, probs, price_usd"
    row = f"INSERT INTO draws ({columns}) VALUES ('a', '', '', 'c0', ?, ?, ?)"
    db.execute(row, (0, '{"angry": 1.0}', 0.25))
    db.execute(row, (1, '{"angry": 1.0}', None))
    db.commit()
    db.close()
    return path


def test_an_old_file_is_upgraded_and_keeps_its_draws_and_their_price(old: Path) -> None:
    with DrawsStore(old) as store:
        assert store.keys(A) == {("c0", 0), ("c0", 1)}
        assert store.spent() == {A: (0.25, 0.0)}
        assert store.reserve([wanted(2, 0.8)], 1.0, owner(), 60)[0].refused == "budget"
    with DrawsStore(old) as store:  # once
        assert store.spent() == {A: (0.25, 0.0)}


def test_an_old_file_can_be_read_without_being_changed(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = old.read_bytes()
    for writable in (True, False):
        monkeypatch.setattr("os.access", lambda *_, writable=writable: writable)
        with DrawsStore(old, read_only=True) as store:
            assert len(store.keys(A)) == 2
            assert store.attempts(A) == store.problems(A) == {}
            assert store.spent() == {A: (0.25, 0.0)}
        assert old.read_bytes() == before


def test_reserving_stays_fast_with_many_draws_in_the_store(store: DrawsStore) -> None:
    store.add(StoredDraw(A, f"c{i}", 0, Answer({"angry": 1.0})) for i in range(20_000))
    started = time.monotonic()
    store.reserve([wanted(clip=f"n{i}") for i in range(500)], 1000.0, owner(), 60)
    assert time.monotonic() - started < 1.0
    assert ledger.totals(store._db) == (0.0, 500.0)
