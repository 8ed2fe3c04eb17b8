import numpy as np
import pytest
import torch

from mifuse.models.frontend import FLOOR, HOP, N_MELS, SAMPLE_RATE, WINDOW, LogMel, mel_filters
from mifuse_runtime.audio import SILENCE_DB

FRONTEND = LogMel()


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32))


def reference_power(samples):
    """Mel power by every second bin of torch.stft, which shares no code with the front end."""
    count = samples.shape[1]
    padded = torch.nn.functional.pad(samples.double(), (HOP, HOP + -count % HOP))
    window = torch.hann_window(WINDOW, dtype=torch.float64)
    spectra = torch.stft(padded, WINDOW, HOP, window=window, center=False, return_complex=True)
    power = (spectra[:, ::2] / window.sum()).abs() ** 2
    return power.transpose(1, 2) @ mel_filters()


@pytest.mark.parametrize("count", [1, 255, 256, 257, 4_000, 16_001])
def test_power_is_that_of_an_stft(count):
    samples = noise(2, count)
    expected = reference_power(samples)
    power = FRONTEND.power(samples)
    assert power.shape == expected.shape == (2, -(-count // HOP) + 1, N_MELS)
    np.testing.assert_allclose(power, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


def test_mel_filters_follow_the_frequency():
    times = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    peaks = [
        int(FRONTEND.power(torch.sin(2 * torch.pi * f * times)[None])[0, 20].argmax())
        for f in (200, 500, 1000, 2000, 4000, 7000)
    ]
    assert peaks == sorted(set(peaks))
    assert peaks[0] > 0 and peaks[-1] < N_MELS


@pytest.mark.parametrize("level", [1e-3, 0.1, 2.0])
def test_level_drops_out(level):
    samples = noise(1, 8_000) * torch.linspace(0.01, 1, 8_000)
    for plain, scaled in zip(FRONTEND(samples), FRONTEND(samples * level), strict=True):
        torch.testing.assert_close(scaled, plain, rtol=1e-3, atol=1e-3)


def test_zero_padding_is_masked_silence():
    samples = noise(1, 6_000)
    features, mask, _ = FRONTEND(samples)
    padded_features, padded_mask, _ = FRONTEND(torch.nn.functional.pad(samples, (0, 5_000)))
    frames = mask.shape[2]
    torch.testing.assert_close(padded_features[:, :, :frames], features)
    assert mask.all()
    assert not padded_mask[:, :, frames:].any()
    assert not padded_features[:, :, frames:].any()


def test_quiet_frames_are_masked():
    samples = noise(1, 16 * HOP)
    samples[:, 8 * HOP :] *= 10 ** (-(SILENCE_DB + 6) / 20)
    mask = FRONTEND(samples)[1][0, 0]
    assert mask[:8].all()
    assert not mask[10:].any()


def test_each_mel_bin_has_zero_mean_over_speech():
    features, mask, _ = FRONTEND(noise(2, 9_000))
    means = (features * mask).sum(2) / mask.sum(2)
    torch.testing.assert_close(means, torch.zeros_like(means), rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 100, HOP, WINDOW + 1])
@pytest.mark.parametrize("level", [0.0, 1e-30, 1.0])
def test_any_length_and_silence_are_finite(count, level):
    features, mask, _ = FRONTEND(noise(3, count) * level)
    assert features.shape == (3, N_MELS, -(-count // HOP) + 1)
    assert mask.shape == (3, 1, features.shape[2])
    assert torch.isfinite(features).all()
    assert bool(mask.any()) == (level == 1.0)


def test_a_clip_is_the_same_alone_and_in_a_batch():
    samples = noise(3, 5_000)
    together = FRONTEND(samples)[0]
    torch.testing.assert_close(FRONTEND(samples[1:2])[0], together[1:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [5_000, 20 * HOP])
def test_a_broken_clip_breaks_no_other(count):
    samples = noise(3, count)
    expected = FRONTEND.power(samples)
    samples[1] = torch.nan
    np.testing.assert_array_equal(FRONTEND.power(samples)[::2], expected[::2])


def test_floor_is_what_silence_gives():
    assert FRONTEND.logmel(torch.zeros(1, 1_000)).unique().tolist() == pytest.approx([np.log(FLOOR)])
