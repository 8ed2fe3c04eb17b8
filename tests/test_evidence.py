"""What is shown of a voice: tempo and tilt (pitch is in test_prosody), z-scores, a picture."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mifuse.clips.audio import SAMPLE_RATE, AudioCache, Samples
from mifuse.clips.manifest import Manifest, read_manifest
from mifuse.demo.synth import make_domain
from mifuse.teachers.evidence import DPI, HEIGHT, WIDTH, Voices, picture
from mifuse.voices.prosody import MEASURES, Norm, measure


def tone(hertz: float, seconds: float = 1.0, harmonics: int = 8) -> Samples:
    """A buzz."""
    phase = hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return sum(0.1 * np.sin(2 * np.pi * k * phase) / k for k in range(1, harmonics + 1)).astype(np.float32)


def measured(samples: Samples) -> dict[str, float]:
    return dict(zip(MEASURES, measure(samples).values.tolist(), strict=True))


def test_energy_tempo_and_pauses() -> None:
    voice = tone(150, 2.0)
    loud, soft = measured(voice), measured(voice / 10)
    assert loud["energy"] - soft["energy"] == pytest.approx(20, abs=0.1)
    seconds = np.arange(len(voice)) / SAMPLE_RATE
    syllables = measured(voice * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * seconds)).astype(np.float32))
    assert syllables["rate"] == pytest.approx(4, abs=0.6)
    assert loud["rate"] < 1
    paused = voice.copy()
    paused[int(0.8 * SAMPLE_RATE) : int(1.3 * SAMPLE_RATE)] = 0
    found = measured(paused)
    assert found["longest_pause"] == pytest.approx(0.5, abs=0.06)
    assert found["pauses"] == pytest.approx(25, abs=3) and loud["pauses"] == 0
    assert found["duration"] == 2.0


def test_noise_is_not_voiced_and_bright_is_bright() -> None:
    noise = measured(np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32))
    assert noise["voiced_share"] < 20
    assert measured(tone(150, harmonics=25))["tilt"] > measured(tone(150, harmonics=4))["tilt"] + 10
    assert noise["tilt"] > 0


@pytest.mark.parametrize("samples", [np.zeros(1), np.ones(3_000)])
def test_any_samples_give_a_picture(samples: np.ndarray) -> None:
    samples = samples.astype(np.float32)
    assert picture(samples, measure(samples)).startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("studio")
    return read_manifest(make_domain(folder, "studio", speakers=2, clips_per_speaker=5, seconds=1.0))


def test_scores_are_relative_to_corpus_and_speaker(manifest: Manifest) -> None:
    voices = Voices(manifest.clips, AudioCache())
    _, table = voices.evidence(manifest.clips[0])
    lines = table.splitlines()
    assert lines[0] == "measure | value | z, 10 recordings | z, 5 recordings of this speaker"
    assert len(lines) == 1 + len(MEASURES)
    all_scores = [
        [float(line.split(" | ")[3]) for line in voices.evidence(clip)[1].splitlines()[1:]]
        for clip in manifest.clips
        if clip.speaker == manifest.clips[0].speaker
    ]
    assert np.abs(np.mean(all_scores, axis=0)).max() < 0.1  # rounded to one decimal
    nobody = replace(manifest.clips[0], speaker=None)
    assert "of this speaker" not in voices.evidence(nobody)[1]


def test_of_long_clips_the_first_seconds_are_shown(manifest: Manifest) -> None:
    whole, cut = (Voices(manifest.clips, AudioCache(), max_seconds=most) for most in (30.0, 0.5))
    png, table = cut.evidence(manifest.clips[0])
    duration = MEASURES["duration"][1]
    assert (
        f"{duration} | 0.5 s" in table and f"{duration} | 0.5 s" not in whole.evidence(manifest.clips[0])[1]
    )
    samples = AudioCache().samples(manifest.clips[0])[: SAMPLE_RATE // 2]
    assert png == picture(samples, measure(samples))


def test_labels_and_names_do_not_show(manifest: Manifest) -> None:
    blind = [replace(clip, label=None) for clip in manifest.clips]
    assert Voices(blind, AudioCache()).evidence(blind[0]) == Voices(manifest.clips, AudioCache()).evidence(
        manifest.clips[0]
    )
    _, table = Voices(manifest.clips, AudioCache()).evidence(manifest.clips[0])
    assert not any(word in table for word in (manifest.clips[0].speaker or "-", *["angry", "happy", "sad"]))


def test_a_collection_of_equals_scores_zero() -> None:
    norm = Norm.of([np.array([1.0, 2.0])] * 3)
    assert norm.z(np.array([1.0, 5.0])).tolist() == [0.0, 0.0]


def test_the_picture_shows_what_sounds(tmp_path: Path) -> None:
    import matplotlib.image

    samples = np.concatenate([tone(200, 0.5), np.zeros(8000, np.float32), tone(200, 0.5, harmonics=30)])
    png = picture(samples, measure(samples))
    pixels = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]
    height, width = pixels.shape[:2]
    assert (width, height) == (round(WIDTH * DPI), round(HEIGHT * DPI))
    inside = pixels[int(0.05 * height) : int(0.62 * height), int(0.1 * width) : int(0.9 * width)].mean(axis=2)
    thirds = [part.mean() for part in np.array_split(inside, 3, axis=1)]
    assert thirds[1] < 0.05 < thirds[0] < thirds[2]
    assert b"<svg" in picture(samples, measure(samples), "svg")
