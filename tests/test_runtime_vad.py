"""The voice-activity gate: voices pass, silence and noise of any colour do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mifuse_runtime import read_audio
from mifuse_runtime.settings import Settings
from mifuse_runtime.vad import VoiceGate, levels, speech_frames
from tests.bundles import RATE, speech, tone


def share(samples: np.ndarray, settings: Settings = Settings(), rate: int = RATE) -> float:  # noqa: B008
    gate = VoiceGate(settings, rate)
    gate.feed(samples.astype(np.float32))
    return gate.share(0, samples.size)


def noise(slope: float, seconds: float = 20.0) -> np.ndarray:
    """Noise whose power falls with 1 / f ** slope: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(round(seconds * RATE)))
    samples = np.fft.irfft(spectrum * np.arange(1, spectrum.size + 1.0) ** (-slope / 2))
    return 0.5 * samples / np.abs(samples).max()


@pytest.mark.parametrize("slope", [0, 1, 2])
def test_noise_is_no_speech(slope: float) -> None:
    assert share(noise(slope)) < 0.03
    assert share(noise(slope), replace(Settings(), voice=0.0)) > 0.9


@pytest.mark.parametrize("pitch", [110, 180, 250])
@pytest.mark.parametrize("rate", [8000, RATE, 48_000])
def test_voices_are(pitch: float, rate: int) -> None:
    samples = speech(4, rate, pitch)
    loud = np.mean(levels(samples[: samples.size // 512 * 512].reshape(-1, 512)) > -60)
    assert 0.3 < loud < 0.9
    # A syllable's first frame waits for the second, so these, of 6 frames each, lose a part.
    assert 0.55 * loud < share(samples, rate=rate) < loud + 0.02
    noisy = samples + 0.001 * np.random.default_rng(0).standard_normal(samples.size)
    assert share(noisy, rate=rate) > 0.25


def test_level_is_in_decibels_of_full_scale() -> None:
    assert levels(np.ones((1, 512), np.float32)) == pytest.approx(0)
    for level, passed in ((-58.0, 1.0), (-62.0, 0.0)):
        assert share(tone(2, level=2**0.5 * 10 ** (level / 20)), replace(Settings(), voice=0.0)) == passed
    assert share(np.zeros(RATE)) == 0
    assert share(np.zeros(RATE), replace(Settings(), level=-200.0, voice=0.0)) == 1


def test_share_counts_whole_frames_inside() -> None:
    gate = VoiceGate(Settings(), RATE, vad=lambda frame: bool(frame.any()))
    gate.feed(np.repeat([0, 1, 0, 1, 1, 0], 512).astype(np.float32))
    assert gate.share(0, 3072) == 0.5
    assert gate.share(1, 2048) == pytest.approx(2 / 3)  # frames 1 to 3
    assert gate.share(1536, 2599) == 1
    assert gate.share(2560, 2600) == 0  # no whole frame


def test_settings_hold_on_real_recordings(corpora: Path) -> None:
    pytest.importorskip("soundfile")
    for corpus in ("ravdess", "nemo", "koremo"):
        caught: list[bool] = []
        for clip in sorted((corpora / corpus / "clips").rglob("*.flac"))[::100]:
            samples = read_audio(clip)
            frames = samples[: samples.size // 512 * 512].reshape(-1, 512)
            loud = levels(frames) > max(levels(frames).max() - 25, -60)
            caught.extend(speech_frames(frames, Settings())[0][loud])
            assert share(samples) > Settings().speech, clip
        assert np.mean(caught) > 0.9, corpus
