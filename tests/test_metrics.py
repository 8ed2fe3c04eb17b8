import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mifuse.errors import MifuseError
from mifuse.runs.metrics import confusion_matrix, expected_calibration_error, score, unweighted_accuracy


def one_hot(predictions, classes, confidence=1.0):
    rest = (1 - confidence) / (classes - 1)
    probs = np.full((len(predictions), classes), rest)
    probs[np.arange(len(predictions)), predictions] = confidence
    return probs


def test_hand_computed():
    # class 0: 3 of 4 right; class 1: 1 of 2 right; class 2: absent, predicted once
    labels = np.array([0, 0, 0, 0, 1, 1])
    predictions = [0, 0, 0, 1, 1, 2]
    scores = score(labels, one_hot(predictions, 3))
    assert scores.confusion == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert scores.ua == pytest.approx((75 + 50) / 2)
    assert scores.wa == pytest.approx(100 * 4 / 6)
    # F1: 2*3/(4+3), 2*1/(2+2), 0
    assert scores.macro_f1 == pytest.approx(100 * (6 / 7 + 1 / 2 + 0) / 3)
    assert scores.recalls[:2] == [75, 50]
    assert math.isnan(scores.recalls[2])
    assert scores.ece == pytest.approx(1 - 4 / 6)  # always sure, right 4 times of 6
    assert scores.n == 6


def test_a_class_that_never_occurs_counts_nowhere():
    scores = score(np.array([0, 1]), one_hot([0, 1], 4))
    assert (scores.ua, scores.wa, scores.macro_f1) == (100, 100, 100)


def test_ece_by_hand():
    # Bin of 0.9: right 1 of 2, gap 0.4; bin of 0.6: right 2 of 2, gap 0.4.
    labels = np.array([0, 1, 0, 0])
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert expected_calibration_error(labels, probs) == pytest.approx(0.4)


def test_interval_is_over_speakers():
    # One speaker always right, one always wrong: samples are 0, 50 or 100; by clips the interval is narrow.
    labels = np.zeros(200, dtype=int)
    predictions = np.repeat([0, 1], 100)
    speakers = ["a"] * 100 + ["b"] * 100
    assert score(labels, one_hot(predictions, 2), speakers).ua_interval == (0, 100)
    low, high = score(labels, one_hot(predictions, 2)).ua_interval
    # Binomial: 50 ± 1.96 * sqrt(0.25 / 200) = 50 ± 6.9
    assert 41 < low < 45
    assert 55 < high < 59
    assert score(labels, one_hot(predictions, 2), [None] * 200).ua_interval == (low, high)


def test_one_speaker_has_no_interval():
    scores = score(np.array([0, 1]), one_hot([0, 1], 2), ["a", "a"])
    assert all(math.isnan(end) for end in scores.ua_interval)


@pytest.mark.parametrize(
    ("labels", "probs", "speakers", "says"),
    [
        ([], np.zeros((0, 4)), None, "nothing to score"),
        ([4], np.full((1, 4), 0.25), None, "class 4"),
        ([-1], np.full((1, 4), 0.25), None, "class -1"),
        ([0], np.full((1, 4), np.nan), None, "NaN"),
        ([0, 1], np.full((1, 4), 0.25), None, "shape"),
        ([0], np.full((1, 4), 0.25), ["a", "b"], "2 speakers"),
    ],
)
def test_bad_input(labels, probs, speakers, says):
    with pytest.raises(MifuseError, match=says):
        score(np.array(labels, dtype=int), probs, speakers)


@st.composite
def answers(draw):
    n, classes = draw(st.integers(1, 30)), draw(st.integers(2, 5))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    raw = draw(hnp.arrays(np.float64, (n, classes), elements=st.floats(0.01, 1)))
    speakers = draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    return labels, raw / raw.sum(axis=1, keepdims=True), speakers


@settings(max_examples=40, deadline=None)
@given(answers())
def test_properties(case):
    labels, probs, speakers = case
    classes = probs.shape[1]
    scores = score(labels, probs, speakers)
    predictions = probs.argmax(axis=1)
    slow = [np.mean(predictions[labels == c] == c) for c in range(classes) if (labels == c).any()]
    assert scores.ua == pytest.approx(100 * np.mean(slow))
    assert scores.ua == pytest.approx(unweighted_accuracy(labels, predictions, classes))
    assert scores.wa == pytest.approx(100 * np.mean(predictions == labels))
    assert 0 <= scores.ece <= 1
    assert np.sum(scores.confusion) == len(labels)
    low, high = scores.ua_interval
    assert math.isnan(low) or 0 <= low <= high <= 100
    # Renaming the classes changes no score.
    order = np.random.default_rng(0).permutation(classes)
    renamed = np.empty_like(probs)
    renamed[:, order] = probs
    if (np.sort(probs)[:, -1] > np.sort(probs)[:, -2]).all():
        again = score(order[labels], renamed, speakers)
        assert (again.ua, again.wa) == pytest.approx((scores.ua, scores.wa))
        assert again.ece == pytest.approx(scores.ece)


def test_confusion_rows_are_labels():
    assert confusion_matrix(np.array([0]), np.array([1]), 2).tolist() == [[0, 1], [0, 0]]
