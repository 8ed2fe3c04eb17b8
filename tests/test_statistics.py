import numpy as np
import pytest

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import make_domain
from mifuse.models import frontend
from mifuse.models.features import Features
from mifuse.voices import prosody
from mifuse.voices.spectral import describe
from mifuse.voices.statistics import voice_statistics
from mifuse_runtime import audio as runtime_audio


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


@pytest.mark.parametrize(
    ("module", "name"), [(prosody, "VOICED"), (frontend, "FLOOR"), (runtime_audio, "SILENCE_DB")]
)
def test_another_constant_measures_again(world, monkeypatch, module, name):
    clips, cache, rows = world
    monkeypatch.setattr(module, name, getattr(module, name) * 1.5)
    assert not np.array_equal(voice_statistics(clips, cache).in_memory(), rows)
