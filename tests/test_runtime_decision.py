"""Decisions: smoothed, without flicker, "not sure" where the bundle says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mifuse_runtime import NO_SPEECH, NOT_SURE, Prediction
from mifuse_runtime.decision import Decider
from mifuse_runtime.settings import Settings

LABELS = ("happy", "sad")


def decide(shares: list[float | None], hop: float = 0.5, **settings: float) -> list[Prediction]:
    """Predictions for probabilities of "happy"; None is a window without speech."""
    decider = Decider(LABELS, Settings(**settings), hop)
    windows = [None if share is None else np.array([share, 1 - share]) for share in shares]
    return [decider.decide(probs, number * hop, number * hop + 3) for number, probs in enumerate(windows)]


def states(shares: list[float | None], **settings: float) -> list[str]:
    return [p.state for p in decide(shares, **settings)]


def test_first_window_decides() -> None:
    (found,) = decide([0.8])
    assert found == Prediction("happy", {"happy": 0.8, "sad": pytest.approx(0.2)}, 0, 3, "happy", 0.8)


def test_scores_are_smoothed_with_the_time_constant() -> None:
    found = decide([1.0] + [0.0] * 4, hop=0.25, smoothing=1.0, margin=0.0)
    happy = np.exp(-0.25 * np.arange(5))
    assert [p.confidence for p in found] == pytest.approx(np.maximum(happy, 1 - happy))
    assert [p.state for p in found] == ["happy"] * 3 + ["sad"] * 2  # half after 0.69 s
    assert [p.label for p in found] == ["happy"] + ["sad"] * 4  # the window alone
    assert states([1.0, 0.0], smoothing=0.0) == ["happy", "sad"]


@given(st.lists(st.floats(0.451, 0.549), min_size=1, max_size=50))
def test_a_small_lead_changes_nothing(shares: list[float]) -> None:
    for smoothing in (0.0, 0.5):
        assert len(set(states(shares, smoothing=smoothing, margin=0.1))) == 1
    assert len(set(states([0.7, *shares], margin=0.1, abstain=0.55, smoothing=0.0))) == 1


def test_not_sure_below_the_threshold() -> None:
    shares: list[float | None] = [0.55, 0.65, 0.55, 0.51, 0.49, 0.35, 0.3]
    assert states(shares, abstain=0.6, margin=0.08, smoothing=0.0) == [
        NOT_SURE,
        "happy",
        "happy",  # above 0.6 - 0.08
        NOT_SURE,
        NOT_SURE,
        "sad",
        "sad",
    ]


def test_silence_ends_an_utterance() -> None:
    found = decide([0.9, None, 0.4], smoothing=5.0)
    assert [p.state for p in found] == ["happy", NO_SPEECH, "sad"]
    assert found[2].confidence == pytest.approx(0.6)
    assert found[1].scores == {"happy": 0.5, "sad": 0.5}
