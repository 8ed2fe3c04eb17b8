import numpy as np
import pytest

from mifuse.fusion import refinement as refine_module
from mifuse.fusion.refinement import (
    RefineConfig,
    cross_fit,
    match_prior,
    refine,
    soften_prior,
)
from mifuse.models.features import Features
from mifuse.models.frontend import N_MELS
from mifuse.runs.metrics import unweighted_accuracy
from mifuse.voices.effects import standardised, without_speakers
from mifuse.voices.spectral import describe

pytestmark = pytest.mark.learning

CLASSES = 4
OFF = RefineConfig(rounds=0, prior=0.0)


@pytest.fixture(scope="module")
def archive():
    """Clips whose spectrum shows the class, of 4 speakers with spectra of their own, and the truth."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat(np.arange(CLASSES), 40))
    speakers = [f"s{i % 4}" for i in range(len(truth))]
    mels = np.arange(N_MELS)
    voices = {
        name: 1.5 * np.cos(2 * np.pi * (mels / N_MELS + rng.random())) for name in sorted(set(speakers))
    }
    emotions = [0.8 * np.cos(np.pi * (k + 2) * mels / N_MELS) for k in range(CLASSES)]
    frames = [
        -6 + voices[speaker] + emotions[k] + 0.5 * rng.standard_normal((20, N_MELS))
        for k, speaker in zip(truth, speakers, strict=True)
    ]
    features = Features(np.concatenate(frames).astype(np.float16), np.arange(len(truth) + 1) * 20)
    return features, speakers, truth


@pytest.fixture(scope="module")
def noisy(archive):
    """Labels of a teacher that is wrong in a third of the clips and likes class 2 far too much, (N, C)."""
    truth = archive[2]
    rng = np.random.default_rng(1)
    answered = np.where(rng.random(len(truth)) < 0.33, rng.integers(0, CLASSES, len(truth)), truth)
    labels = 0.55 * np.eye(CLASSES)[answered] + 0.45 * rng.dirichlet(np.ones(CLASSES), len(truth))
    labels[:, 2] += 0.35
    return labels / labels.sum(1, keepdims=True)


def run(labels, archive, config, seed=0, known=None):
    features, speakers, _ = archive
    values = standardised(describe(features))
    if config.speakers:
        groups = np.unique([str(name) for name in speakers], return_inverse=True)[1]
        values = without_speakers(values, groups, labels, 0.0)
    return refine(labels, values, config, seed, known).labels


def ua(truth, probs):
    return unweighted_accuracy(truth, probs.argmax(1), CLASSES)


def test_refined_labels_are_better(archive, noisy):
    truth = archive[2]
    refined = run(noisy, archive, RefineConfig())
    np.testing.assert_allclose(refined.sum(1), 1)
    assert (refined >= 0).all()
    assert ua(truth, refined) > ua(truth, noisy) + 8
    assert ua(truth, refined) > ua(truth, soften_prior(noisy, 1.0)) + 4  # not the prior's doing alone
    # The teacher liked one class; half of that at least is gone.
    skew = noisy.mean(0)[2] - 1 / CLASSES
    assert abs(refined.mean(0)[2] - 1 / CLASSES) < skew / 2


def test_a_few_true_labels_undo_a_teacher_that_takes_one_class_for_another(archive):
    truth = archive[2]
    swapped = np.array([1, 0, 2, 3])[truth]  # consistently, so that the archive bears it out
    labels = 0.2 * np.eye(CLASSES)[swapped] + 0.2
    known = np.full(len(truth), -1)
    for k in range(CLASSES):
        known[np.flatnonzero(truth == k)[:5]] = k
    rest = known < 0
    refined = run(labels, archive, RefineConfig(), known=known)
    assert ua(truth[rest], refined[rest]) > ua(truth[rest], run(labels, archive, RefineConfig())[rest]) + 8
    np.testing.assert_array_equal(refined[~rest].argmax(1), truth[~rest])
    assert (refined[~rest].max(1) > 0.99).all()
    np.testing.assert_allclose(refined.sum(1), 1)
    unrefined = run(labels, archive, OFF, known=known)
    np.testing.assert_array_equal(unrefined[~rest].argmax(1), truth[~rest])


def test_same_seed_same_labels(archive, noisy):
    config = RefineConfig(rounds=1)
    assert np.array_equal(run(noisy, archive, config, seed=3), run(noisy, archive, config, seed=3))


def test_off_is_the_identity_up_to_the_floor(archive, noisy):
    for labels in (noisy, np.eye(CLASSES)[archive[2]]):
        refined = run(labels, archive, OFF)
        np.testing.assert_allclose(refined, labels, atol=4e-3)
        np.testing.assert_allclose(refined.sum(1), 1)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_very_few_clips(archive, noisy, count):
    features, speakers, _ = archive
    few = Features(features.frames[: 20 * count], features.offsets[: count + 1])
    refined = run(noisy[:count], (few, speakers[:count], None), RefineConfig())
    np.testing.assert_allclose(refined.sum(1), 1)


def test_match_prior_reaches_the_prior(noisy):
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    matched = match_prior(noisy, prior)
    np.testing.assert_allclose(matched.sum(1), 1)
    np.testing.assert_allclose(matched.mean(0), prior, atol=1e-3)
    # It scales the classes and nothing else: ratios between clips stay.
    ratios = (matched / noisy)[:, 1:] / (matched / noisy)[:, :1]
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios[0], ratios.shape), rtol=1e-6)


def test_soften_prior(noisy):
    assert soften_prior(noisy, 0.0) is noisy
    np.testing.assert_allclose(soften_prior(noisy, 1.0).mean(0), 0.25, atol=1e-3)
    half = np.ptp(soften_prior(noisy, 0.5).mean(0))
    assert 0 < half < np.ptp(noisy.mean(0))


def test_the_prior_alone_may_be_calibrated(archive, noisy):
    """`rounds` = 0 leaves the archive out; the prior is drawn towards uniform all the same."""
    whole = run(noisy, archive, RefineConfig(rounds=0, prior=1.0))
    np.testing.assert_allclose(whole.mean(0), 0.25, atol=1e-3)
    assert ua(archive[2], whole) > ua(archive[2], noisy) + 2
    half = run(noisy, archive, RefineConfig(rounds=0, prior=0.5))
    assert noisy.mean(0)[2] > half.mean(0)[2] > 0.26


def test_a_class_that_nobody_names():
    labels = np.tile([0.5, 0.5, 0.0], (6, 1))
    assert np.isfinite(soften_prior(labels, 0.5)).all()


def test_cross_fit_never_sees_the_clip_itself(monkeypatch):
    seen = []

    def probe(inputs, labels, weights, queries, l2):
        assert not set(inputs[:, 0]) & set(queries[:, 0])
        np.testing.assert_array_equal(weights, inputs[:, 0] + 1)
        seen.extend(queries[:, 0])
        return np.full((len(queries), 2), 0.5)

    monkeypatch.setattr(refine_module, "_probe", probe)
    inputs = np.arange(23.0)[:, None]
    cross_fit(inputs, np.full((23, 2), 0.5), inputs[:, 0] + 1, RefineConfig(folds=4), seed=0)
    assert sorted(seen) == inputs[:, 0].tolist()


def test_descriptions_are_finite():
    silent = np.full((3, N_MELS), -16.0, np.float16)
    one_frame = np.full((1, N_MELS), -5.0, np.float16)
    described = describe(Features(np.concatenate([silent, one_frame]), np.array([0, 3, 4])))
    assert described.shape[0] == 2
    assert np.isfinite(described).all()
