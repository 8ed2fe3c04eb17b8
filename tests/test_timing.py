"""Intervals of times, and what differs, on runs of a known kind of chance."""

from __future__ import annotations

import numpy as np
import pytest

from mifuse.exporting.timing import changes, summary


def run(rng: np.random.Generator, rounds: int = 5, slower: float = 1.0) -> list[np.ndarray]:
    """Calls that scatter little within a round and more between rounds, as on a machine."""
    return [slower * rng.lognormal(rng.normal(0, 0.1), 0.05, 20) for _ in range(rounds)]


def test_another_run_falls_into_the_interval_in_19_of_20() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        found = summary(run(rng))
        assert found.again
        held += found.again[0] <= summary(run(rng)).p50 <= found.again[1]
    assert 0.92 <= held / 400 <= 0.98


def test_equal_programs_are_rarely_called_different() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(150):
        pairs = [(summary(run(rng)).rounds, summary(run(rng)).rounds) for _ in range(6)]
        wrong += any(change.differs for change in changes(pairs))
    assert wrong / 150 <= 0.1  # of all six together, .05


def test_a_slower_program_is_found_with_how_much() -> None:
    rng = np.random.default_rng(2)
    runs = [(summary(run(rng, 10)).rounds, summary(run(rng, 10, 1.5)).rounds) for _ in range(200)]
    found = [changes([pair])[0] for pair in runs]
    assert all(change.differs and change.times > 1 for change in found)
    assert sum(change.low < 1.5 < change.high for change in found) >= 0.9 * len(found)
    assert all(change.times < 1 for pair in runs for change in changes([pair[::-1]]))


def test_what_one_round_can_say() -> None:
    assert summary([[3.0, 4.0, 5.0]]).again is None
    with pytest.raises(ValueError, match="two of each"):
        changes([([1.0], [1.0, 2.0])])
    (same,) = changes([([2.0, 2.0], [2.0, 2.0])])
    assert (same.times, same.differs) == (1.0, False)
    (other,) = changes([([2.0, 2.0], [3.0, 3.0])])
    assert (round(other.times, 6), other.differs) == (1.5, True)
