"""Estimates of how good teachers are, on simulated teachers whose truth is known."""

import numpy as np
import pytest

from mifuse.fusion.evidence import FULL, LEAST, WEAK, exponent, weigh
from mifuse.fusion.refinement import RefineConfig
from mifuse.fusion.reliability import (
    agreement,
    as_sure_as_right,
    expected_accuracy,
    floored,
    reliabilities,
    tempered,
)

CLASSES = 4


def teacher(truth, reliability, rng):
    """Names the true class so often, and any class otherwise; sharp, (N, C)."""
    said = np.where(rng.random(len(truth)) < reliability, truth, rng.integers(0, CLASSES, len(truth)))
    return np.eye(CLASSES)[said]


@pytest.fixture(scope="module")
def truth():
    return np.random.default_rng(0).integers(0, CLASSES, 4000)


@pytest.mark.parametrize("real", [(0.9, 0.5, 0.3), (0.2, 0.6, 0.6), (0.8, 0.7, 0.4, 0.3)])
def test_reliabilities_of_independent_teachers(truth, real):
    rng = np.random.default_rng(1)
    found = reliabilities([teacher(truth, one, rng) for one in real])
    np.testing.assert_allclose(found, real, atol=0.07)


def test_views_that_know_nothing_are_near_chance(truth):
    rng = np.random.default_rng(2)
    views = [rng.dirichlet(np.ones(CLASSES), len(truth)) for _ in range(3)]
    assert (reliabilities(views) < 0.3).all()


def test_expected_accuracy_counts_the_most_frequent_class():
    uniform, skewed = np.full(4, 0.25), np.array([0.7, 0.1, 0.1, 0.1])
    assert expected_accuracy(0.0, uniform) == 0.25
    assert expected_accuracy(0.5, skewed) == pytest.approx(0.85)
    assert expected_accuracy(1.0, skewed) == 1.0


def test_tempered_has_the_confidence_and_keeps_the_order(truth):
    probs = np.random.default_rng(3).dirichlet(np.ones(CLASSES), 300)
    for confidence in (0.4, 0.6, 0.8):
        found = tempered(probs, confidence)
        assert found.max(axis=1).mean() == pytest.approx(confidence, abs=0.01)
        np.testing.assert_array_equal(found.argmax(axis=1), probs.argmax(axis=1))
        np.testing.assert_allclose(found.sum(axis=1), 1)
    sharp = floored(teacher(truth, 0.5, np.random.default_rng(4)))
    assert as_sure_as_right(sharp, 0.5).max(axis=1).mean() == pytest.approx(0.5 + 0.5 * 0.25, abs=0.02)


def test_agreement_is_symmetric_and_zero_for_a_constant(truth):
    rng = np.random.default_rng(5)
    a, b = teacher(truth, 0.6, rng), teacher(truth, 0.4, rng)
    assert agreement(a, b) == pytest.approx(agreement(b, a))
    assert agreement(a, np.full_like(a, 0.25)) == pytest.approx(0)


def statistics_of(truth, rng):
    return 0.8 * rng.standard_normal((CLASSES, 12))[truth] + rng.standard_normal((len(truth), 12))


def test_the_better_teacher_counts_for_more():
    """Labels of a good and of a bad teacher are about as good as the good one's, whichever it is."""
    rng = np.random.default_rng(6)
    truth = rng.integers(0, CLASSES, 600)
    good, bad = (0.7 * teacher(truth, one, rng) + 0.075 for one in (0.75, 0.2))
    values, config = statistics_of(truth, rng), RefineConfig()
    right = (good.argmax(axis=1) == truth).mean()
    for lalm, classifier, order in ((good, bad, 1), (bad, good, -1)):
        found = weigh([lalm], classifier, values, config)
        assert (found.labels.argmax(axis=1) == truth).mean() > right - 0.03
        assert found.reliabilities[0] * order > found.reliabilities[1] * order
        np.testing.assert_allclose(found.labels.sum(axis=1), 1)


def test_several_lalms_are_better_than_the_best_of_them():
    rng = np.random.default_rng(7)
    truth = rng.integers(0, CLASSES, 600)
    lalms = [0.7 * teacher(truth, 0.5, rng) + 0.075 for _ in range(3)]
    found = weigh(lalms, None, statistics_of(truth, rng), RefineConfig())
    alone = max((lalm.argmax(axis=1) == truth).mean() for lalm in lalms)
    assert (found.labels.argmax(axis=1) == truth).mean() > alone + 0.05
    assert len(found.reliabilities) == len(found.opinions) == 4  # and the probe


def test_a_lalm_alone_is_taken_as_it_is():
    rng = np.random.default_rng(8)
    lalm = rng.dirichlet(np.ones(CLASSES), 50)
    found = weigh([lalm], None, rng.standard_normal((50, 3)), RefineConfig())
    np.testing.assert_array_equal(found.labels, lalm)
    assert np.isnan(found.reliabilities).all()


def test_exponent_of_a_classifier():
    assert exponent(0.0) == LEAST == exponent(WEAK)
    assert exponent(FULL) == 1 == exponent(1.0)
    assert LEAST < exponent((WEAK + FULL) / 2) < 1
