"""The verdict on simulated teachers with known truth."""

import numpy as np
import pytest

from mifuse.fusion.evidence import Evidence
from mifuse.fusion.new_voices import held_out, voices_of
from mifuse.fusion.verdict import STUDENT, Expected, calibrated, corrected_by_agreement, expected, judge

pytestmark = pytest.mark.learning

CLASSES = 4


def world(seed, clips=600):
    """True classes, posteriors of them that are calibrated, a predictor, and speakers."""
    rng = np.random.default_rng(seed)
    posterior = rng.dirichlet(np.full(CLASSES, 0.4), clips)
    truth = np.array([rng.choice(CLASSES, p=row) for row in posterior])
    said = np.where(rng.random(clips) < 0.6, truth, rng.integers(0, CLASSES, clips))
    return truth, posterior, np.eye(CLASSES)[said], np.repeat(np.arange(clips // 20), 20)


def scores(truth, predictions):
    right = predictions.argmax(axis=1) == truth
    return 100 * np.mean([right[truth == c].mean() for c in range(CLASSES)]), 100 * right.mean()


def test_calibrated_labels_foretell_what_depends_on_them():
    for seed in range(5):
        truth, posterior, _, groups = world(seed)
        found = expected(posterior, posterior, groups)
        ua, accuracy = scores(truth, posterior)
        assert found.ua == pytest.approx(ua, abs=6)
        assert found.accuracy == pytest.approx(accuracy, abs=6)
        assert found.ua_interval[0] < ua < found.ua_interval[1]


def test_a_check_set_puts_a_wrong_expectation_right():
    """A predictor that knows more than the labels is undervalued without truth; with 100 clips it is not."""
    blind, corrected, covered = [], [], []
    for seed in range(20):
        truth, posterior, said, groups = world(seed)
        flat = 0.5 * posterior + 0.5 / CLASSES
        known = np.full(len(truth), -1)
        drawn = np.random.default_rng(seed).permutation(len(truth))[:100]
        known[drawn] = truth[drawn]
        _, accuracy = scores(truth, said)
        blind.append(abs(expected(flat, said, groups).accuracy - accuracy))
        found = expected(flat, said, groups, known)
        corrected.append(abs(found.accuracy - accuracy))
        covered.append(found.accuracy_interval[0] <= accuracy <= found.accuracy_interval[1])
    assert np.mean(corrected) < 0.5 * np.mean(blind)
    assert np.mean(covered) > 0.8


def test_labels_that_are_too_sure_are_softened():
    truth, posterior, _, _ = world(3)
    sharp = posterior**6
    sharp /= sharp.sum(axis=1, keepdims=True)
    reliability = (scores(truth, posterior)[0] / 100 - 0.25) / 0.75
    evidence = Evidence(sharp, [posterior], [posterior, sharp], np.array([reliability, 1.0]))
    found = calibrated(sharp, evidence)
    assert found.max(axis=1).mean() < sharp.max(axis=1).mean() - 0.05
    np.testing.assert_array_equal(found.argmax(axis=1), sharp.argmax(axis=1))


def test_a_student_that_errs_elsewhere_than_the_labels_is_not_undervalued():
    """Labels that are right in 70 % judge a student who is right in 75 %, of other clips."""
    rng = np.random.default_rng(4)
    truth, one_hot = rng.integers(0, CLASSES, 2000), np.eye(CLASSES)

    def view(right):
        return one_hot[
            np.where(rng.random(2000) < right, truth, (truth + rng.integers(1, CLASSES, 2000)) % 4)
        ]

    lalm, classifier, probe, student = view(0.5), view(0.45), view(0.7), view(0.75)
    labels = 0.6 * probe + 0.1  # as sure as they are right
    found = expected(labels, student, np.arange(2000))
    both = corrected_by_agreement(found, student, [lalm, classifier, probe])
    assert found.ua < 65
    assert abs(both.ua - 75) < 0.7 * abs(found.ua - 75)
    assert both.ua_interval[0] < both.ua < both.ua_interval[1] <= 100
    assert np.mean(both.recalls) == pytest.approx(both.ua)


def one(ua):
    return Expected(ua, (ua - 5, ua + 5), ua, (ua - 5, ua + 5))


@pytest.mark.parametrize(
    ("student", "best", "deploy", "words"),
    [
        (70, STUDENT, True, "Deploy"),
        (56, STUDENT, False, "Too close"),
        (60, STUDENT, False, "Too close"),  # less than estimates without a label are off by
        (54, "LALM", False, "Too close"),
        (40, "LALM", False, "Keep asking the LALM"),
    ],
)
def test_what_to_do(student, best, deploy, words):
    new = {"LALM": one(55), "classifier": one(30), "average": one(50), STUDENT: one(student)}
    found = judge(new, new, 0)
    assert (found.best, found.deploy) == (best, deploy)
    assert found.advice.startswith(words)
    assert found.as_json()["new_voices"][STUDENT]["ua"] == student
    assert judge(new, {}, 0).best == best  # without new voices the archive decides
    assert judge(new, new, 40).deploy == (student > 57)  # with a check set two points are enough


@pytest.fixture
def crossing():
    """75 against 60 at equal shares, 50 against 90 where all are neutral: even at 3 of 7."""
    interval = (0.0, 100.0)
    student = Expected(72.5, interval, 72.5, interval, (50.0, 80.0, 80.0, 80.0))
    lalm = Expected(60.0, interval, 60.0, interval, (90.0, 50.0, 50.0, 50.0))
    return {"LALM": lalm, "classifier": one(20), STUDENT: student}


def called(neutral):
    rest = (1 - neutral) / 3
    return {"neutral": neutral, "angry": rest, "happy": rest, "sad": rest}


def test_what_if_one_emotion_prevails(crossing):
    found = judge(crossing, crossing, 0, called=called(0.4))
    assert found.deploy and found.advice.startswith("Deploy")
    assert "If more than 43% of the clips are neutral, the LALM is expected to be right" in found.advice
    assert judge(crossing, crossing, 0).advice.endswith("of the LALM.")  # the shares are known
    behind = crossing | {"LALM": crossing[STUDENT], STUDENT: crossing["LALM"]}
    assert "If more" not in judge(behind, behind, 0, called=called(0.4)).advice  # right more often anyway
    best = crossing | {STUDENT: Expected(90.0, (0.0, 100.0), 90.0, (0.0, 100.0), (90.0,) * 4)}
    assert "If more" not in judge(best, best, 0, called=called(0.9)).advice


def test_one_emotion_that_prevails_by_what_the_lalm_says(crossing):
    """It may be so, or the LALM calls too much neutral: nothing but a check set tells."""
    found = judge(crossing, crossing, 0, called=called(0.74))
    assert (found.best, found.deploy) == (STUDENT, False)
    assert found.advice.startswith("Check before you deploy: the LALM calls 74% of the clips neutral, and if")
    assert "--shares" in found.advice and "choose --random 40" in found.advice
    assert judge(crossing, crossing, 40).deploy  # a check set says the shares


def test_few_clips_say_too_little(crossing):
    found = judge(crossing, crossing, 0, clips=80)
    assert (found.best, found.deploy) == (STUDENT, False)
    assert found.advice.startswith("Too few clips to say (80, 150 are needed")
    assert judge(crossing, crossing, 40, clips=80).deploy  # 40 of them with labels
    behind = crossing | {"LALM": crossing[STUDENT], STUDENT: crossing["LALM"]}
    assert judge(behind, behind, 0, clips=80).advice.startswith("Keep asking")


def test_held_out_voices_are_whole():
    voices = np.repeat(np.arange(6), 20)
    rows = held_out(voices)
    assert 0.3 * len(voices) <= len(rows) <= 0.6 * len(voices)
    assert not set(voices[rows]) & set(np.delete(voices, rows))
    assert len(held_out(np.zeros(100, dtype=int))) == 0  # one voice cannot be left out
    assert len(held_out(np.repeat([0, 1], 10))) == 0  # too few clips


def test_unnamed_clips_have_voices_too():
    rng = np.random.default_rng(0)
    values = np.repeat(8 * rng.standard_normal((3, 20)), 40, axis=0) + rng.standard_normal((120, 20))
    labels = np.full((120, CLASSES), 0.25)
    found = voices_of([None] * 120, values, labels)
    assert len(np.unique(found)) >= 3
    named = voices_of(["ann"] * 60 + ["bob"] * 60, values, labels)
    assert (named == np.repeat([0, 1], 60)).all()
