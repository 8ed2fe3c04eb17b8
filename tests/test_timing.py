"""Intervals of times, and what differs, on runs of a known kind of chance."""

from __future__ import annotations

import numpy as np
import pytest

from mifuse.exporting.timing import changes, drift, summary, widened


def run(rng: np.random.Generator, rounds: int = 5, slower: float = 1.0) -> list[np.ndarray]:
    """Calls that scatter little within a round and more between rounds, as on a machine."""
    return [slower * rng.lognormal(rng.normal(0, 0.1), 0.05, 20) for _ in range(rounds)]


@pytest.mark.parametrize("rounds", [3, 5, 9, 10])
def test_another_run_falls_into_the_interval_in_19_of_20(rounds: int) -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        found = summary(run(rng, rounds))
        assert found.again
        held += found.again[0] <= summary(run(rng, rounds)).p50 <= found.again[1]
    assert 0.92 <= held / 200 <= 0.995


def two_runs(rng: np.random.Generator, kind: str, programs: int = 20, rounds: int = 9) -> np.ndarray:
    """Rounds of many programs in two runs, one after the other, ms (2, programs, rounds)."""
    logs = rng.normal(0, 0.03, (programs, 2 * rounds))
    if "others" in kind:  # an eighth of the rounds is disturbed by other programs
        logs += (rng.random(logs.shape) < 0.12) * np.abs(rng.normal(0, 0.5, logs.shape))
    if "walk" in kind:  # the machine's speed walks
        logs += np.cumsum(rng.normal(0, 0.02, 2 * rounds))
    if "waves" in kind:  # it comes back within a run's time
        speed = [0.0]
        for step in rng.normal(0, 0.024, 2 * rounds - 1):
            speed.append(0.89 * speed[-1] + step)
        logs += speed
    return np.stack(np.split(np.exp(logs), 2, axis=1))


@pytest.mark.parametrize("kind", ["quiet", "others", "walk", "walk, others", "waves", "waves, others"])
def test_a_second_run_holds_what_the_first_one_said(kind: str) -> None:
    rng, held, plain = np.random.default_rng(3), [], []
    for _ in range(60):
        first, second = two_runs(rng, kind)
        common = drift(first)
        for rounds, other in zip(first, np.median(second, axis=1), strict=True):
            found = summary(rounds[:, None])
            assert found.again
            plain.append(found.again[0] <= other <= found.again[1])
            low, high = widened(found, common).again or (0, 0)
            held.append(low <= other <= high)
    assert 0.94 <= np.mean(held) <= 0.999
    if kind == "walk":
        assert np.mean(plain) < 0.8  # as chance within a run has it


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
