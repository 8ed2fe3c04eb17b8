"""Embeddings within the speaker: the norm, the batches, and what a student learns from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import speakers as benchmark
from mifuse.models.augment import AugmentConfig
from mifuse.models.features import Features
from mifuse.models.frontend import N_MELS
from mifuse.models.speaker_norm import CLIPS_PER_SPEAKER, FEWEST, Sampler, SpeakerNorm, groups, speaker_ids
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer, mc_dropout_draws, predict

pytestmark = pytest.mark.learning

VOICES, CLIPS, FRAMES = 18, 24, 30


def test_speakers_of_few_clips_are_not_known():
    speakers = ["few"] * (FEWEST - 1) + ["b"] * FEWEST + [None, ""] * FEWEST + ["a"] * FEWEST
    found = speaker_ids(speakers)
    assert found[: FEWEST - 1].tolist() == [-1] * (FEWEST - 1)
    assert sorted(set(found.tolist())) == [-1, 0, 1]
    rows = [speakers[group[0]] for group in groups(found)]
    assert rows == ["a", "b"]
    assert all((found[group] == found[group[0]]).all() for group in groups(found))
    assert list(groups(np.full(3, -1))) == []


def test_norm_within_speakers_and_for_unknown_ones():
    torch.manual_seed(0)
    norm = SpeakerNorm(6, spectrum=2)
    norm.running_mean += 1.0
    norm.running_var += 3.0
    norm.eval()
    rows = torch.randn(2 * FEWEST + 3, 6) * 3 + 5
    speakers = np.array([0, 1] * FEWEST + [-1] * 3)
    z = norm.within(rows, speakers)
    for voice in (0, 1):
        own = rows[speakers == voice]
        expected = (own - own.mean(0)) / torch.sqrt(own.var(0, correction=0) + norm.eps)
        torch.testing.assert_close(z[speakers == voice], expected)
    expected = (rows[-3:, :4] - 1) / (4 + norm.eps) ** 0.5
    torch.testing.assert_close(z[-3:, :4], expected)
    assert not z[-3:, 4:].any(), "an unknown speaker's spectrum is left out"
    halves = norm(rows[:CLIPS_PER_SPEAKER], clips_per_speaker=CLIPS_PER_SPEAKER // 2).reshape(2, -1, 6)
    torch.testing.assert_close(halves.mean(1), torch.zeros(2, 6), atol=1e-5, rtol=0)


def test_batches_of_speakers():
    speakers = np.array([2, -1, 0, 1, 0, 2, 1, 1, -1, 0])
    weights = np.array([1, 50, 1, 1, 1, 3, 1, 2, 50, 0.0])
    sampler = Sampler(weights, speakers)
    assert sampler.knows_speakers
    index = sampler.of_speakers(np.random.default_rng(0), 2_000, 4).reshape(-1, 4)
    assert (speakers[index] == speakers[index[:, :1]]).all() and (speakers[index] >= 0).all()
    shares = np.bincount(index.ravel(), minlength=10) / index.size
    np.testing.assert_allclose(shares, np.where(speakers < 0, 0, weights) / 10, atol=0.02)
    anybody = sampler.clips(np.random.default_rng(0), 20_000)
    shares = np.bincount(anybody, minlength=10) / len(anybody)
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.02)
    assert not Sampler(weights, np.full(10, -1)).knows_speakers


def voices(seed=0, tilt=3.0):
    """Clips whose class is whether the voice is brighter than usual, and whose voices differ far more."""
    rng = np.random.default_rng(seed)
    truth = np.arange(VOICES * CLIPS) % 2
    slope = np.linspace(-1, 1, N_MELS)
    usual = rng.uniform(-8, 8, VOICES)
    frames = [
        -7 + (usual[i // CLIPS] + tilt * (2 * k - 1)) * slope / 2 + rng.standard_normal((FRAMES, N_MELS))
        for i, k in enumerate(truth)
    ]
    speakers = speaker_ids([f"v{i // CLIPS}" for i in range(len(truth))])
    offsets = np.arange(len(truth) + 1) * FRAMES
    return Features(np.concatenate(frames).astype(np.float16), offsets, speakers), truth


def fit(seed):
    torch.manual_seed(seed)
    features, truth = voices()
    augment = AugmentConfig(stretch=0, warp=0, noise=0, time_masks=0, mel_masks=0)
    config = FitConfig(steps=60, steps_per_epoch=20, augment=augment)
    trainer = Trainer(Student(labels="ab", size="xs"), features, config, seed)
    while trainer.epoch < trainer.epochs:
        trainer.run_epoch(np.eye(2)[truth])
    return trainer


@pytest.fixture(scope="module")
def fits():
    """Four seeds: one ends between 0.87 and 0.98, their mean within 0.02 of 0.94."""
    return [fit(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def fitted(fits):
    return fits[0]


def accuracy(probs, truth):
    return (probs.argmax(1) == truth).mean()


def test_new_voices_are_normalised_by_their_own_mean(fits):
    features, truth = voices(seed=1)
    probs = [
        (
            predict(one.average, features),
            mc_dropout_draws(one.average, features, 4).mean(0),
            predict(one.average, features.anonymous()),
        )
        for one in fits
    ]
    known, drawn, anybody = np.mean([[accuracy(p, truth) for p in of_one] for of_one in probs], axis=0)
    assert known > 0.85 and drawn > 0.85
    assert anybody < 0.7


def test_a_batch_holds_a_few_speakers_or_anybody(fitted):
    seen = set()
    for step in range(20):
        fitted.step = step
        index, _ = fitted._batch(Sampler(np.ones(len(fitted.features)), fitted.features.speakers))
        assert len(index) == fitted.config.batch_size
        seen.add(fitted.clips_per_speaker)
        if fitted.clips_per_speaker:
            own = fitted.features.speakers[index].reshape(-1, fitted.clips_per_speaker)
            assert (own == own[:, :1]).all()
    assert seen == {0, CLIPS_PER_SPEAKER}
    for config in (replace(fitted.config, speakers=0.0), replace(fitted.config, batch_size=FEWEST - 1)):
        fit = Trainer(Student(labels="ab", size="xs"), fitted.features, config)
        for fit.step in range(5):
            fit._batch(Sampler(np.ones(len(fit.features)), fit.features.speakers))
            assert fit.clips_per_speaker == 0


def test_standalone_is_the_student_for_unknown_speakers(fitted):
    student = fitted.average.eval()
    samples = 0.1 * torch.randn(3, 9_000)
    alone = student.standalone()
    torch.testing.assert_close(alone(samples), student(samples), rtol=0, atol=1e-5)
    assert student.head.in_features == alone.head.in_features + 2 * N_MELS
    assert student.speaker_head().shape == (2, student.head.in_features + 1)


def test_benchmark_of_known_speakers(fitted):
    features, truth = voices(seed=2)
    rows = {"toy": benchmark.measure(fitted.average, features, truth)}
    assert list(rows["toy"])[:2] == [benchmark.ALONE, "4 clips"]
    assert all(ua == pytest.approx(accuracy) for ua, accuracy in rows["toy"].values()), (
        "as many of each class"
    )
    assert rows["toy"][benchmark.ALONE][0] < 70 < 85 < rows["toy"]["24 clips"][0]
    assert rows["toy"]["24 clips, 70 % angry"][0] > rows["toy"][benchmark.ALONE][0]
    assert benchmark.markdown(rows).count("\n") == 1 + len(rows["toy"])
