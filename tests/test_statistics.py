import numpy as np
import pytest

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import make_domain
from mifuse.models.features import Features
from mifuse.voices import prosody
from mifuse.voices import statistics as voices_module
from mifuse.voices.spectral import describe
from mifuse.voices.statistics import voice_statistics


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Six clips and their statistics."""
    folder = tmp_path_factory.mktemp("voices")
    manifest = make_domain(folder / "d", "studio", speakers=1, clips_per_speaker=6, seconds=0.6)
    clips, cache = read_manifest(manifest).clips, AudioCache(folder / "cache")
    return clips, cache, voice_statistics(clips, cache).in_memory()


def test_spectral_and_prosodic_side_by_side(world):
    clips, cache, rows = world
    expected = np.hstack([describe(Features.of(clips, cache)), prosody.measures(clips, cache)])
    assert np.array_equal(rows, expected)  # to the last bit: results do not depend on what is on disk


def test_measured_once(world, monkeypatch):
    clips, cache, rows = world
    monkeypatch.setattr(prosody, "measure", None)  # would fail when called
    assert np.array_equal(voice_statistics(clips, AudioCache(cache.folder.parent)).in_memory(), rows)


def test_other_code_measures_again(world, monkeypatch, tmp_path):
    clips, cache, rows = world
    edited = tmp_path / "prosody.py"
    edited.write_text("VOICED = 0.5\n")
    monkeypatch.setattr(prosody, "__file__", str(edited))
    monkeypatch.setattr(prosody, "VOICED", 0.7)
    voices_module._key.cache_clear()
    try:
        assert not np.array_equal(voice_statistics(clips, cache).in_memory(), rows)
    finally:
        voices_module._key.cache_clear()
