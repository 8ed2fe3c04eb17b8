"""Speaker clustering on made-up voices: near the names where these differ, harmless where they do not."""

import numpy as np
import pytest

from mifuse.fusion.refinement import RefineConfig, refine
from mifuse.runs.metrics import unweighted_accuracy
from mifuse.voices.clustering import COUNTS, clusterings, unnamed_clips, voices_removed
from mifuse.voices.effects import standardised
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
    answered = np.where(rng.random(clips) < 0.33, rng.integers(0, CLASSES, clips), truth)
    labels = 0.5 * np.eye(CLASSES)[answered] + 0.5 * rng.dirichlet(np.ones(CLASSES), clips)
    return values, [f"v{v}" for v in voice], labels, truth


def ua(statistics, labels, truth):
    refined = refine(labels, statistics, RefineConfig()).labels
    return unweighted_accuracy(truth, refined.argmax(1), CLASSES)


def removed(values, names, labels):
    return voices_removed(values, names, None)(labels)


@pytest.mark.parametrize("voices", [3, 6, 12])
def test_voices_are_found_without_names(voices):
    values, names, labels, truth = archive(voices)
    nobody = [None] * len(truth)
    named = ua(removed(values, names, labels), labels, truth)
    alike = ua(removed(values, nobody, labels), labels, truth)
    together = ua(standardised(values), labels, truth)
    assert alike > together + 0.3 * (named - together)
    assert named > together + 8  # else there was nothing to gain


def test_one_voice_is_not_split_by_emotion():
    values, names, labels, truth = archive(1)
    alike = ua(removed(values, [None] * len(truth), labels), labels, truth)
    assert alike > ua(removed(values, names, labels), labels, truth) - 10


def test_clusters_are_voices():
    values, names, labels, _ = archive(2)
    two = clusterings(values, labels)[0]
    same = np.array(names) == names[0]
    assert max((two == 0)[same].mean(), (two == 1)[same].mean()) > 0.95


def test_names_come_first():
    """Named clips are taken by their names, the others by the voices that are found among them."""
    values, names, labels, truth = archive(4)
    half = [name if name < "v2" else None for name in names]
    found = removed(values, half, labels)
    unnamed = np.flatnonzero([name is None for name in half])
    assert (unnamed_clips(half) == unnamed).all()
    others = removed(values, [name or "all others" for name in half], labels)
    assert not np.allclose(found[unnamed], others[unnamed])
    assert ua(found, labels, truth) > ua(others, labels, truth)


def test_few_clips_are_one_voice():
    values, _, labels, _ = archive(2, clips=15)
    one = removed(values, ["one"] * 15, labels)
    np.testing.assert_allclose(removed(values, [None] * 15, labels), one)


def test_the_seed_decides():
    values, _, labels, _ = archive(3)
    first, again, other = (clusterings(values, labels, seed) for seed in (0, 0, 1))
    assert len(first) == len(COUNTS)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_labels_that_all_say_the_same_do_no_harm():
    values, _, labels, _ = archive(3)
    found = removed(values, [None] * len(values), np.full_like(labels, 1 / CLASSES))
    assert np.isfinite(found).all()
