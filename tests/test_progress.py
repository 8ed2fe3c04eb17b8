"""Progress where there is no terminal: a line at the start, then one every 30 s with what is left."""

from __future__ import annotations

import io

import pytest

from mifuse.commands import progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_every_half_minute(clock: Clock) -> None:
    log = io.StringIO()
    with progress.bar(1000, "read", log) as update:
        for _ in range(100):
            clock.now += 1.0
            update(1, "loss 0.5")
    lines = log.getvalue().splitlines()
    assert lines[:2] == ["read", "read: 30 of 1000, loss 0.5, 16 min left"]
    assert len(lines) == 4


def test_nothing_is_lost_on_the_way(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.reading(iter("abc"), "look")) == ["a", "b", "c"]
    with progress.epochs("train", 60) as record:
        clock.now = 31
        record({"encoded": 7})
        clock.now = 62
        record({"step": 20, "loss": 1.25})
    assert capsys.readouterr().err.splitlines() == [
        "look",
        "train",
        "train: 0 of 60, 7 clips encoded",
        "train: 20 of 60, loss 1.250, 2 min left",
    ]
