"""Speaker effects on made-up statistics: balanced speakers, and speakers of one mood each."""

import numpy as np
import pytest

from mifuse.voices.effects import mixing, standardised, without_speakers

CLASSES, SIZE = 4, 20


def archive(speakers, clips, moods, seed=0):
    """Statistics (N, D), speakers, truth; each speaker shows so many of the emotions."""
    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(speakers), clips)
    truth = (speaker + rng.integers(0, moods, len(speaker))) % CLASSES
    emotions = rng.standard_normal((CLASSES, SIZE))
    voices = 2 * rng.standard_normal((speakers, SIZE))
    values = emotions[truth] + voices[speaker] + rng.standard_normal((len(speaker), SIZE))
    return standardised(values), speaker, truth


def separation(z, truth, speaker):
    """How far emotions differ, measured against how far speakers of one emotion differ."""
    means = np.stack([z[truth == c].mean(axis=0) for c in range(CLASSES)])
    within = np.concatenate([z[truth == c] - means[c] for c in range(CLASSES)])
    return means.var(axis=0).mean() / within.var(axis=0).mean()


@pytest.mark.parametrize(("moods", "mixed"), [(4, 0.0), (1, 1.0), (2, 1.0)])
def test_speakers_go_and_emotions_stay(moods, mixed):
    values, speaker, truth = archive(24, 20, moods)
    found = without_speakers(values, speaker, np.eye(CLASSES)[truth], mixed)
    assert separation(found, truth, speaker) > 1.5 * separation(values, truth, speaker)


def test_a_mood_of_each_speaker_is_kept_only_where_it_is_taken_for_one():
    values, speaker, truth = archive(24, 20, 1)
    labels = np.eye(CLASSES)[truth]
    kept, lost = (without_speakers(values, speaker, labels, mixed) for mixed in (1.0, 0.0))
    assert separation(kept, truth, speaker) > 10 * separation(lost, truth, speaker)


def test_a_speaker_of_few_clips_is_shrunk():
    """The effect of one clip is not all that the clip is."""
    values, speaker, truth = archive(12, 20, 4)
    speaker = speaker.copy()
    speaker[0] = 12
    found = without_speakers(values, speaker, np.eye(CLASSES)[truth], 0.0)
    assert np.abs(found[0]).max() > 0.1
    assert np.isfinite(found).all() and np.abs(found).max() <= 4


def test_labels_that_say_nothing_do_no_harm():
    values, speaker, _ = archive(6, 10, 4)
    assert np.isfinite(without_speakers(values, speaker, np.zeros((60, 1)), 0.0)).all()
    assert np.isfinite(without_speakers(values, np.zeros(60, dtype=int), np.full((60, 4), 0.25), 1.0)).all()


def teachers(truth, speaker, rng, bias):
    """Two teachers, right in half of the clips; each mistakes speakers' voices for moods of its own."""
    views = []
    for _ in range(2):
        said = np.where(rng.random(len(truth)) < 0.5, truth, rng.integers(0, CLASSES, len(truth)))
        views.append(
            np.eye(CLASSES)[said] + bias * rng.dirichlet(np.ones(CLASSES), speaker.max() + 1)[speaker]
        )
    return tuple(views)


@pytest.mark.parametrize(("moods", "low", "high"), [(4, 0.0, 0.2), (1, 0.8, 1.0)])
def test_mixing_is_found_under_biased_teachers(moods, low, high):
    rng = np.random.default_rng(1)
    speaker = np.repeat(np.arange(40), 20)
    truth = (speaker + rng.integers(0, moods, len(speaker))) % CLASSES
    assert low <= mixing(teachers(truth, speaker, rng, 0.5), speaker) <= high


def test_mixing_without_speakers_to_compare():
    views = (np.eye(4)[np.arange(20) % 4],) * 2
    assert mixing(views, np.zeros(20, dtype=int)) == 0
    assert mixing(views, np.arange(20)) == 0
