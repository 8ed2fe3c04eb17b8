"""Who speaks, where nobody says so: groups of simulated embeddings with known voices and moods."""

import numpy as np
import pytest

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import make_domain
from mifuse.voices import grouping
from mifuse.voices.embedding import SIZE, embed, voice_embeddings
from mifuse.voices.grouping import named, voices


def world(speakers=4, clips=60, mood_spread=0.0, moods=4, seed=0):
    """Embeddings of voices that a mood may move, two teachers' views, and who speaks."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(speakers), clips)
    truth = rng.integers(0, moods, len(who))
    moods = rng.standard_normal((4, 4)) * mood_spread
    embeddings = 6 * rng.standard_normal((speakers, 4))[who] + moods[truth]
    embeddings += 0.5 * rng.standard_normal(embeddings.shape)

    def view(right):
        said = np.where(rng.random(len(who)) < right, truth, rng.integers(0, 4, len(who)))
        return 0.1 + 0.6 * np.eye(4)[said]

    return embeddings, (view(0.6), view(0.5)), who, truth


def pure(found, who):
    """Whether no group holds clips of two speakers, and a speaker lies in three at most, on the mean."""
    pairs = set(zip(found.tolist(), who.tolist(), strict=True))
    return len(pairs) == len(set(found.tolist())) <= 3 * len(set(who.tolist()))


@pytest.mark.parametrize("mood_spread", [0.0, 1.0])
def test_voices_are_found(mood_spread):
    embeddings, views, who, _ = world(mood_spread=mood_spread)
    assert pure(voices(embeddings, views), who)


def test_moods_are_not_taken_for_voices():
    embeddings, views, _, truth = world(speakers=1, clips=240, mood_spread=5.0, moods=2)
    assert not voices(embeddings, views).any()
    blind = tuple(np.random.default_rng(1).permutation(view) for view in views)
    assert pure(voices(embeddings, blind), truth)  # they would be, but for the teachers


def test_a_large_archive_is_grouped_by_a_sample(monkeypatch):
    embeddings, views, who, _ = world(clips=100)
    monkeypatch.setattr(grouping, "MOST", 120)
    assert pure(voices(embeddings, views), who)


def test_too_few_clips_are_one_voice():
    embeddings, views, *_ = world(clips=3)
    assert not voices(embeddings, views).any()


def test_names_are_given_in_order():
    assert named(["ann", None, "", None], np.array([1, 2, 3]), np.array([5, 2, 5])) == [
        "ann",
        "voice 1",
        "voice 2",
        "voice 1",
    ]


def test_a_voice_is_near_itself(tmp_path):
    clips = read_manifest(make_domain(tmp_path, "studio", speakers=4, clips_per_speaker=6, seconds=2.0)).clips
    cache = AudioCache(tmp_path / "cache")
    found = voice_embeddings(clips, cache).in_memory()
    assert found.shape == (24, SIZE)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    likeness = found @ found.T - 2 * np.eye(24)
    speakers = np.array([clip.speaker for clip in clips])
    assert (speakers[likeness.argmax(axis=1)] == speakers).mean() > 0.6  # a quarter by chance
    quiet = embed(cache.samples(clips[0]) * 0.01)
    assert quiet @ embed(cache.samples(clips[0]) * 0.02) == pytest.approx(1, abs=1e-4)
    assert np.isfinite(embed(np.zeros(800, np.float32))).all()
