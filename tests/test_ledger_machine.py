"""The ledger under several processes, crashes, wrong clocks and a service that lies: no budget is passed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from mifuse.clips.labels import LABELS
from mifuse.teachers.base import Answer, Source
from mifuse.teachers.prices import Price
from mifuse.teachers.replies import billed
from mifuse.teachers.store import ledger
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.ledger import Wanted, owner
from mifuse.teachers.store.rows import Settled, StoredDraw

SOURCE = Source("openai", "m", "p")
PRICE = Price(input=100, output=400, audio=200, cache_read=50, cache_write=125)
MOST = {"input": 1000, "audio": 500, "output": 300}
BUDGET, LEASE = 2.5, 600.0
EVEN = dict.fromkeys(LABELS, 1 / len(LABELS))
COUNTS = st.integers(-(10**30), 10**30) | st.floats() | st.booleans() | st.none() | st.text(max_size=3)
LIES = st.dictionaries(
    st.sampled_from(["input", "audio", "output", "cache_read", "more"]), COUNTS, max_size=4
)


class Processes(RuleBasedStateMachine):
    """Three processes of one store; the second machine's clock is its own."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "d.db"
        self.stores = [DrawsStore(self.path) for _ in range(3)]
        self.now = 1.8e9
        self.real = ledger.time
        ledger.time = self  # type: ignore[assignment]  # its clock
        self.open: dict[int, tuple[int, int]] = {}  # reservation -> process, draw
        self.asking: dict[int, int] = {}  # draw -> reservation, while its process lives
        self.paid: dict[int, float] = {}  # draw -> what was booked for it
        self.names = [owner(), "elsewhere.0123456789ab:5", "elsewhere.ba9876543210:5"]

    def time(self) -> float:
        return self.now

    @rule(target=requests, process=st.integers(0, 2), draw=st.integers(0, 11))
    def ask(self, process: int, draw: int) -> tuple[int, int, int]:
        wanted = Wanted(SOURCE, "clip", (draw,), draw, PRICE.most(MOST))
        (grant,) = self.stores[process].reserve([wanted], BUDGET, self.names[process], LEASE)
        if grant.id is None:
            return (process, draw, 0)
        assert draw not in self.paid, "what is stored is not asked for"
        assert draw not in self.asking, "nobody asks what a living process asks"
        self.asking[draw] = grant.id
        return (process, draw, grant.id)

    @rule(request=consumes(requests), usage=LIES)
    def answer(self, request: tuple[int, int, int], usage: dict[str, Any]) -> None:
        process, draw, number = request
        if not number:
            return
        counts, odd = billed(usage, MOST)
        usd = PRICE.most(MOST) if odd else min(PRICE.usd(counts), PRICE.most(MOST))
        assert 0 <= usd <= PRICE.most(MOST)
        row = StoredDraw(SOURCE, "clip", draw, Answer(EVEN, None, None, usd))
        if self.stores[process].settle([Settled(SOURCE, number, usd, [row])]):
            assert draw not in self.paid, "a draw is paid once"
            self.paid[draw] = usd
        if self.asking.get(draw) == number:
            del self.asking[draw]

    @rule(request=consumes(requests), sent=st.booleans())
    def fail(self, request: tuple[int, int, int], sent: bool) -> None:
        process, draw, number = request
        if number and sent:
            self.stores[process].abandon(number)
        elif number:
            self.stores[process].settle([Settled(SOURCE, number)])
        if self.asking.get(draw) == number:
            del self.asking[draw]

    @rule(request=consumes(requests))
    def kill(self, request: tuple[int, int, int]) -> None:
        """The process of a request is gone, as far as its own machine can see."""
        process, draw, number = request
        if number and process == 0:
            dead = f"{owner().rpartition(':')[0]}:{2**22 + 1}@1"
            self.stores[1]._db.execute("UPDATE reservations SET owner = ? WHERE id = ?", (dead, number))
            if self.asking.get(draw) == number:
                del self.asking[draw]

    @precondition(lambda self: not any(self.asking.values()))
    @rule(seconds=st.sampled_from([-1e6, -60.0, 60.0, LEASE + ledger.LATE + 1, 1e7]))
    def jump(self, seconds: float) -> None:
        self.now += seconds

    @rule(process=st.integers(0, 2))
    def restart(self, process: int) -> None:
        self.stores[process].close()
        self.stores[process] = DrawsStore(self.path)

    @invariant()
    def within_budget(self) -> None:
        paid, unsettled = ledger.totals(self.stores[0]._db)
        assert paid + unsettled <= BUDGET + 1e-6
        assert abs(paid - sum(self.paid.values())) < 1e-6, "what is booked is what was paid for"

    def teardown(self) -> None:
        ledger.time = self.real  # type: ignore[assignment]
        for store in self.stores:
            store.close()
        self.folder.cleanup()


Processes.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestProcesses = Processes.TestCase
