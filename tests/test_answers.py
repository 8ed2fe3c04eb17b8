"""What models write: exactly one distribution, or a reason."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mifuse.errors import DrawsError
from mifuse.teachers.answers import InvalidAnswerError, from_tokens, parse

LABELS = ("angry", "sad")


@pytest.mark.parametrize(
    "text",
    [
        '{"angry": 0.75, "sad": 0.25}',
        '```json\n{"sad": 0.25, "angry": 0.75}\n```',
        'I hear {much} anger: {"Anger": 0.75, "sadness": 0.25}. {sigh}',
        '\n {"angry": 75e-2, "sad": 0.25}{',
    ],
)
def test_one_object_amid_anything(text: str) -> None:
    assert parse(text, LABELS) == {"angry": 0.75, "sad": 0.25}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the answer is empty"),
        (" \n", "the answer is empty"),
        ("angry", "no JSON object in the answer"),
        ('{"angry": 0.7, "sad": 0.', "no JSON object"),
        ('{"angry": 1, "sad": 0} or {"angry": 0, "sad": 1}', "2 JSON objects, one is expected"),
        ('{"angry": 0.5, "angry": 0.5, "sad": 0.5}', "names a label twice"),
        ('{"angry": 0.5, "anger": 0.1, "sad": 0.4}', "a repeated label 'anger'"),
        ('{"angry": NaN, "sad": 1}', "has NaN for a probability"),
        ('{"angry": -0.5, "sad": 1.5}', "probability of 'angry' is -0.5"),
        ('{"angry": "0.5", "sad": 0.5}', "probability of 'angry' is '0.5'"),
        ('{"angry": true, "sad": 0}', "probability of 'angry' is True"),
        ('{"angry": 60, "sad": 40}', "probability of 'angry' is 60"),
        ('{"angry": 0.9, "sad": 0.9}', "sum to 1.8, not 1"),
        ('{"angry": 1}', "no probability for sad"),
        ('{"angry": 0.5, "sad": 0.5, "bored": 0.05}', "an unknown label 'bored'"),
        ('{"probs": {"angry": 0.5, "sad": 0.5}}', "probability of 'probs' is {'angry'"),
        ("{}", "expected a probability for each label"),
        ('{"a":' * 3000, "no JSON object"),
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidAnswerError, match="the answer") as error:
        parse(text, LABELS)
    assert reason in str(error.value)


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_text_breaks_it(text: str) -> None:
    try:
        probs = parse(text, LABELS)
    except DrawsError:
        return
    assert set(probs) == set(LABELS)


def test_tokens_count_for_the_label_that_they_begin() -> None:
    tokens = [(" Happy", 0.5), ("neutral", 0.25), ("hap", 0.1), ("n", 0.05), ("The", 0.05), ("", 0.05)]
    probs = from_tokens([(t, math.log(p)) for t, p in tokens], ("happy", "neutral", "sad"))
    assert probs == {"happy": pytest.approx(2 / 3), "neutral": pytest.approx(1 / 3), "sad": 0.0}


@pytest.mark.parametrize("tokens", [[], [("s", -0.1)], [("sad", -1.0), ("I", -0.5)], [("sad", math.nan)]])
def test_tokens_of_something_else_are_refused(tokens: list[tuple[str, float]]) -> None:
    with pytest.raises(InvalidAnswerError, match="at least half is expected"):
        from_tokens(tokens, ("sad", "surprised"))
