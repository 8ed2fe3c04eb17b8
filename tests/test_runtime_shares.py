"""Class shares on the device: the decision moves, streams too; bad shares are one line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from mifuse_runtime import MifuseError, Recognizer
from mifuse_runtime.shares import odds
from tests.bundles import make_bundle

LABELS = ("angry", "happy", "neutral", "sad")


def test_odds_move_from_the_shares_of_the_training() -> None:
    trained = {"angry": 0.1, "happy": 0.1, "neutral": 0.7, "sad": 0.1}
    np.testing.assert_allclose(odds(LABELS, trained, trained), 1)
    np.testing.assert_allclose(odds(LABELS, {"neutral": 0.7}, trained), 1)
    even = odds(LABELS, dict.fromkeys(LABELS, 0.25), trained)
    assert even[2] < 0.4 and (even[[0, 1, 3]] == 2.5).all()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"calm": 0.5}, "shares name 'calm': the emotions are angry, happy, neutral, sad"),
        ({"sad": 1.5}, "the share of sad is 1.5: it must be a number from 0 to 1"),
        ({"sad": float("nan")}, "the share of sad is nan"),
        ({"sad": 0.7, "angry": 0.6}, "the shares sum to 1.3: they must sum to at most 1"),
        (dict.fromkeys(LABELS, 0.1), "they must sum to 1, since every emotion has one"),
    ],
)
def test_bad_shares(shares: dict[str, float], message: str) -> None:
    with pytest.raises(MifuseError, match=message):
        odds(LABELS, shares, None)


def speech(seconds: float = 4.0) -> np.ndarray:
    """A buzz that the gate of speech may or may not take: it is off in these tests."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    return (0.3 * np.sin(2 * np.pi * 150 * time) * (1 + np.sin(2 * np.pi * 4 * time))).astype(np.float32)


def test_predictions_and_streams_follow_the_shares(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    plain = Recognizer.load(folder)
    wanted = plain.labels[-1]
    moved = Recognizer.load(folder, shares={wanted: 0.9})
    rest = 0.1 / (len(plain.labels) - 1)
    before, after = (one.predict(speech(), gate=False).scores for one in (plain, moved))
    expected = {name: p * (0.9 if name == wanted else rest) for name, p in before.items()}
    total = sum(expected.values())
    assert after == pytest.approx({name: p / total for name, p in expected.items()})
    streams = [one.stream(vad=lambda _: True).feed(speech()) for one in (plain, moved)]
    assert streams[1][0].scores[wanted] > streams[0][0].scores[wanted]


def test_a_bundle_says_which_shares_its_answers_assume(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    content = json.loads((folder / "bundle.json").read_text())
    labels = content["labels"]
    shares = dict.fromkeys(labels, 0.1 / (len(labels) - 1)) | {labels[0]: 0.9}
    content["provenance"] = {"shares": shares}
    (folder / "bundle.json").write_text(json.dumps(content))
    assert Recognizer.load(folder).bundle.shares == shares
    same = Recognizer.load(folder, shares=shares).predict(speech(), gate=False).scores
    assert same == pytest.approx(Recognizer.load(folder).predict(speech(), gate=False).scores)


def test_another_process_has_the_same_shares(tmp_path: Path) -> None:
    moved = Recognizer.load(make_bundle(tmp_path / "bundle"), shares={"sad": 0.9})
    copied = pickle.loads(pickle.dumps(moved))
    assert copied.predict(speech(), gate=False).scores == moved.predict(speech(), gate=False).scores
