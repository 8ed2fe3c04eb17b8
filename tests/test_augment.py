from dataclasses import replace

import pytest
import torch

from mifuse.errors import MifuseError
from mifuse.models.augment import AugmentConfig, distort, mask, mix
from mifuse.models.features import PADDING
from mifuse.models.frontend import N_MELS

OFF = AugmentConfig(
    stretch=0.0, warp=0.0, noise=0.0, crop=0, time_masks=0, time_mask=0, mel_masks=0, mel_mask=0
)
LENGTHS = torch.tensor([30, 80, 1])


@pytest.fixture
def logmel():
    torch.manual_seed(0)
    x = torch.full((3, 80, N_MELS), PADDING)
    for row, length in zip(x, LENGTHS, strict=True):
        row[:length] = -8 * torch.rand(int(length), N_MELS)
    return x


def test_off_changes_nothing(logmel):
    torch.testing.assert_close(distort(logmel, LENGTHS, OFF), logmel, rtol=1e-3, atol=1e-3)
    assert torch.equal(mask(logmel, OFF), logmel)


@pytest.mark.parametrize("part", ["stretch", "warp", "noise"])
def test_each_part_changes_something(logmel, part):
    config = replace(OFF, **{part: 0.2 if part != "noise" else 1.0})
    torch.manual_seed(1)
    distorted = distort(logmel, LENGTHS, config)
    frames = min(distorted.shape[1], logmel.shape[1])
    assert (distorted[:2, :frames] - logmel[:2, :frames]).abs().max() > 0.5
    assert torch.isfinite(distorted).all()


def test_crop_bounds_the_length(logmel):
    for crop in (20, 80, 500):
        assert distort(logmel, LENGTHS, replace(OFF, crop=crop)).shape == (3, min(crop, 80), N_MELS)
    pieces = {float(distort(logmel, LENGTHS, replace(OFF, crop=20))[1].sum()) for _ in range(5)}
    assert len(pieces) > 1  # another piece of the long clip each time


def test_padding_stays_silence(logmel):
    torch.manual_seed(2)
    config = replace(OFF, stretch=0.2, warp=0.1, noise=1.0)
    distorted = distort(logmel, LENGTHS, config)
    longest = int(30 * 1.2 * 1.1) + 2
    torch.testing.assert_close(
        distorted[0, longest:], torch.full_like(distorted[0, longest:], PADDING), rtol=0, atol=1e-3
    )


def test_masks_become_the_mean(logmel):
    torch.manual_seed(3)
    features = logmel.transpose(1, 2)
    masked = mask(features, AugmentConfig())
    assert masked.shape == features.shape
    changed = masked != features
    assert changed.any()
    assert not masked[changed].any()


def test_same_seed_same_result(logmel):
    def once(seed):
        torch.manual_seed(seed)
        return mask(distort(logmel, LENGTHS, AugmentConfig()).transpose(1, 2), AugmentConfig())

    assert torch.equal(once(5), once(5))
    assert once(5).shape != once(6).shape or not torch.equal(once(5), once(6))


def test_one_frame_of_one_clip():
    torch.manual_seed(4)
    for config in (OFF, AugmentConfig()):
        distorted = distort(torch.zeros(1, 1, N_MELS), torch.tensor([1]), config)
        assert distorted.shape == (1, 1, N_MELS)
        assert torch.isfinite(mask(distorted.transpose(1, 2), config)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stretch": -0.1}, "stretch = -0.1: it must be 0 to 1"),
        ({"noise": float("nan")}, "noise = nan"),
        ({"time_masks": -1}, "time_masks = -1: it must be at least 0"),
        ({"mel_mask": 33}, "mel_mask = 33: it must be 0 to 32"),
        ({"snr": (30.0, 5.0)}, r"snr = \[30.0, 5.0\]: the lower bound comes first"),
    ],
)
def test_strengths_that_make_no_sense(wrong, message):
    with pytest.raises(MifuseError, match=message):
        AugmentConfig(**wrong)


def test_mixing_adds_powers_at_one_level(logmel):
    loud = logmel.clone()
    loud[1] += 5  # the level of a partner does not count
    partners, shares = torch.tensor([1, 0, 2]), torch.tensor([0.75, 1.0, 0.5])
    mixed = mix(logmel, partners, shares)
    torch.testing.assert_close(mixed, mix(loud, partners, shares) - (loud - logmel), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed[1, :80], logmel[1], rtol=0, atol=0.1)  # a share of 1: the clip as it was
    torch.testing.assert_close(mixed[2], logmel[2], rtol=1e-4, atol=1e-4)  # with itself
    peaks = logmel.exp().sum(2).amax(1)
    powers = 0.75 * logmel[0].exp() + 0.25 * logmel[1].exp() * peaks[0] / peaks[1]
    torch.testing.assert_close(mixed[0].exp(), powers, rtol=1e-3, atol=1e-6)
