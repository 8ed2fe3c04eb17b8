import numpy as np
import pytest

from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import make_domain
from mifuse.voices import prosody
from mifuse.voices.prosody import MEASURES, measure, measures

NAMES = list(MEASURES)


def tone(f0, seconds=1.0, level=0.3):
    """Five harmonics of a pitch, constant or one number a sample."""
    count = int(seconds * SAMPLE_RATE)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0, count)) / SAMPLE_RATE
    return level * sum(np.sin(k * phase) / k for k in range(1, 6)).astype(np.float32)


def value(samples, name):
    return measure(samples).values[NAMES.index(name)]


@pytest.mark.parametrize("f0", [80.0, 123.0, 210.0, 390.0])
def test_median_pitch(f0):
    assert value(tone(f0), "f0_median") == pytest.approx(f0, rel=0.01)
    assert value(tone(f0), "f0_spread") < 0.2


def test_a_rising_octave_has_its_slope():
    rising = tone(120 * 2 ** np.linspace(0, 0.5, 2 * SAMPLE_RATE), seconds=2)
    assert value(rising, "f0_slope") == pytest.approx(3, rel=0.1)  # 6 semitones in 2 s
    assert value(tone(120), "f0_slope") == pytest.approx(0, abs=0.1)


def test_energy_is_in_db():
    louder = value(tone(150, level=0.4), "energy") - value(tone(150, level=0.2), "energy")
    assert louder == pytest.approx(20 * np.log10(2), abs=0.01)


def test_pauses():
    gap = np.concatenate([tone(150, 0.5), np.zeros(SAMPLE_RATE // 2, np.float32), tone(150, 0.5)])
    assert value(gap, "longest_pause") == pytest.approx(0.5, abs=0.08)
    assert value(tone(150), "longest_pause") == 0


def test_a_hoarse_voice_is_less_harmonic():
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    assert value(tone(150) + noise, "harmonicity") < value(tone(150), "harmonicity") - 3


@pytest.mark.parametrize("count", [1, 100, 5_000])
def test_silence_noise_and_clicks_give_finite_numbers(count):
    rng = np.random.default_rng(0)
    for samples in (np.zeros(count), rng.uniform(-1, 1, count), np.eye(1, count)[0]):
        assert np.isfinite(measure(samples.astype(np.float32)).values).all()


def test_measures_of_clips(tmp_path):
    manifest = make_domain(tmp_path / "d", "studio", speakers=2, clips_per_speaker=3)
    rows = measures(read_manifest(manifest).clips, AudioCache(tmp_path / "cache"))
    assert rows.shape[1] == len(MEASURES)
    assert np.isfinite(rows).all()
    assert rows.std(axis=0)[NAMES.index("f0_median")] > 0


def test_long_clips_are_measured_in_pieces(monkeypatch):
    samples = tone(120 * 2 ** np.linspace(0, 0.5, 2 * SAMPLE_RATE), seconds=2)
    whole = measure(samples)
    monkeypatch.setattr(prosody, "PIECE", 77)
    pieces = measure(samples)
    np.testing.assert_allclose(pieces.values, whole.values, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(pieces.f0, whole.f0)
