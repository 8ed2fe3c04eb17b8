"""Subsets and groups: other answers from one bundle."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from mifuse_runtime import MifuseError, Recognizer
from mifuse_runtime.__main__ import main
from mifuse_runtime.groups import grouping, parse_groups, subset
from tests.bundles import make_bundle, tone

FIVE = ("angry", "calm", "fear", "happy", "sad")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("groups") / "bundle", FIVE)


def test_a_subset_sums_to_one(folder: Path) -> None:
    whole = Recognizer.load(folder)
    part = whole.subset(["sad", "angry"])
    assert part.labels == ("angry", "sad") and whole.labels == FIVE
    every = whole.predict(tone(), gate=False).scores
    scores = part.predict(tone(), gate=False).scores
    both = every["angry"] + every["sad"]
    assert scores == pytest.approx({"angry": every["angry"] / both, "sad": every["sad"] / both})


def test_groups_sum_their_emotions(folder: Path) -> None:
    whole = Recognizer.load(folder)
    grouped = whole.grouped({"negative": ["angry", "fear", "sad"]})
    assert grouped.labels == ("negative", "calm", "happy")
    every = whole.predict(tone(), gate=False).scores
    scores = grouped.predict(tone(), gate=False).scores
    assert scores["negative"] == pytest.approx(every["angry"] + every["fear"] + every["sad"])
    assert sum(scores.values()) == pytest.approx(1)
    again = pickle.loads(pickle.dumps(grouped.subset(["negative", "calm"])))
    assert again.labels == ("negative", "calm")
    found = grouped.stream(window=1.0, hop=0.5, vad=lambda _: True).feed(tone(2.0))
    assert found and set(found[0].scores) == {"negative", "calm", "happy"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: subset(FIVE, ["angry"]), "two or more emotions"),
        (lambda: subset(FIVE, ["angry", "angry"]), "each once"),
        (lambda: subset(FIVE, ["angry", "bored"]), "no emotion 'bored' here: they are angry, calm"),
        (lambda: grouping(FIVE, {"a": ["bored"]}), "no emotion 'bored'"),
        (lambda: grouping(FIVE, {"a": ["sad"], "b": ["sad"]}), "in the groups a and b"),
        (lambda: grouping(FIVE, {"calm": ["sad", "fear"]}), "name of an emotion outside"),
        (lambda: grouping(FIVE, {"all": FIVE}), "one group, 'all'"),
        (lambda: grouping(FIVE, {"no speech": ["sad"]}), "give it a name"),
        (lambda: parse_groups(["a"]), "write NAME=A"),
        (lambda: parse_groups(["a=x", "a=y"]), "each name once"),
    ],
)
def test_refused(call: object, message: str) -> None:
    with pytest.raises(MifuseError, match=message) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@given(st.lists(st.sampled_from("xyz"), min_size=5, max_size=5))
def test_any_grouping_keeps_all_probability(names: list[str]) -> None:
    if len(set(names)) < 2:
        return
    groups: dict[str, list[str]] = {}
    for label, name in zip(FIVE, names, strict=True):
        groups.setdefault(name, []).append(label)
    labels, matrix = grouping(FIVE, groups)
    assert set(labels) == set(names) and np.array_equal(matrix.sum(axis=1), np.ones(5))


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0), 16_000)
    words = ["predict", str(folder), str(tmp_path / "a.wav"), "--json"]
    assert main([*words, "--labels", "angry, sad,fear", "--group", "low=sad+fear"]) == 0
    assert set(json.loads(capsys.readouterr().out)["scores"]) == {"angry", "low"}
    assert main([*words, "--group", "low=bored"]) == 1
    assert "no emotion 'bored' here" in capsys.readouterr().err
