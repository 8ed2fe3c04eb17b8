"""Speaker clustering on made-up voices: near the names where these differ, harmless where they do not."""

import numpy as np
import pytest

from mifuse.fusion.refinement import RefineConfig, refine
from mifuse.runs.metrics import unweighted_accuracy
from mifuse.voices.clustering import COUNTS, clusterings, within_groups, within_voices
from mifuse.voices.spectral import COEFFICIENTS

CLASSES = 4


def archive(voices: int, clips: int = 240, seed: int = 0):
    """Statistics (N, D) of clips whose voices differ more than their emotions, names, wrong labels, truth."""
    rng = np.random.default_rng(seed)
    truth, voice = rng.permutation(np.arange(clips) % CLASSES), rng.integers(0, voices, clips)
    values = (
        5 * rng.standard_normal((voices, COEFFICIENTS))[voice]
        + 0.5 * rng.standard_normal((CLASSES, COEFFICIENTS))[truth]
        + rng.standard_normal((clips, COEFFICIENTS))
    )
    heard = np.where(rng.random(clips) < 0.33, rng.integers(0, CLASSES, clips), truth)
    labels = 0.5 * np.eye(CLASSES)[heard] + 0.5 * rng.dirichlet(np.ones(CLASSES), clips)
    return values, [f"v{v}" for v in voice], labels, truth


def ua(statistics, labels, truth):
    refined = refine(labels, statistics, RefineConfig())
    return unweighted_accuracy(truth, refined.argmax(1), CLASSES)


@pytest.mark.parametrize("voices", [3, 6, 12])
def test_voices_are_told_apart_without_names(voices):
    values, names, labels, truth = archive(voices)
    nobody = [None] * len(truth)
    named = ua(within_voices(values, names, labels), labels, truth)
    alike = ua(within_voices(values, nobody, labels), labels, truth)
    together = ua(within_groups(values, nobody), labels, truth)
    assert alike > together + 0.3 * (named - together)
    assert named > together + 8  # else there was nothing to gain


def test_one_voice_is_not_split_by_emotion():
    values, names, labels, truth = archive(1)
    alike = ua(within_voices(values, [None] * len(truth), labels), labels, truth)
    assert alike > ua(within_voices(values, names, labels), labels, truth) - 10


def test_clusters_are_voices():
    values, names, labels, _ = archive(2)
    two = clusterings(values, labels)[0]
    same = np.array(names) == names[0]
    assert max((two == 0)[same].mean(), (two == 1)[same].mean()) > 0.95


def test_names_come_first():
    values, names, labels, _ = archive(4)
    np.testing.assert_array_equal(within_voices(values, names, labels), within_groups(values, names))
    half = [name if name < "v2" else None for name in names]
    known = np.array([name is not None for name in half])
    found = within_voices(values, half, labels)
    np.testing.assert_array_equal(found[known], within_groups(values, names)[known])
    assert not np.allclose(found[~known], within_groups(values, half)[~known])


def test_few_clips_are_one_voice():
    values, _, labels, _ = archive(2, clips=15)
    nobody = [None] * 15
    np.testing.assert_array_equal(within_voices(values, nobody, labels), within_groups(values, nobody))


def test_the_seed_decides():
    values, _, labels, _ = archive(3)
    first, again, other = (clusterings(values, labels, seed) for seed in (0, 0, 1))
    assert len(first) == len(COUNTS)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_labels_that_all_say_the_same_do_no_harm():
    values, _, labels, _ = archive(3)
    found = within_voices(values, [None] * len(values), np.full_like(labels, 1 / CLASSES))
    assert np.isfinite(found).all()
