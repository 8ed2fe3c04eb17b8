"""Random changes of log-mel features that leave the emotion: other voices, rates, rooms and gaps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torchaudio.functional
from torch import Tensor
from torch.nn import functional as F

from mifuse.config import require
from mifuse.errors import MifuseError
from mifuse.models.features import PADDING
from mifuse.models.frontend import N_MELS


@dataclass(frozen=True)
class AugmentConfig:
    """Strengths of the augmentation; 0 turns a part off."""

    stretch: float = 0.25  # time stretch, uniform in ± log rate
    warp: float = 0.17  # vocal-tract length, uniform in ± log frequency scale
    noise: float = 0.5  # share of clips that get a noise floor
    snr: tuple[float, float] = (5.0, 35.0)  # dB below the loudest frame
    crop: int = 190  # frames: longest piece of a clip, 3 s; 0 keeps clips whole
    time_masks: int = 2  # SpecAugment
    time_mask: int = 25  # frames at most
    mel_masks: int = 2
    mel_mask: int = 5  # mel bins at most

    def __post_init__(self) -> None:
        one, more = (0, 1), (0, math.inf)
        require(self, stretch=one, warp=one, noise=one, crop=more)
        require(self, time_masks=more, time_mask=more, mel_masks=more, mel_mask=(0, N_MELS))
        if not self.snr[0] <= self.snr[1]:
            raise MifuseError(f"snr = {list(self.snr)}: the lower bound comes first, as in [5, 35]")


def distort(logmel: Tensor, lengths: Tensor, config: AugmentConfig, clips_per_speaker: int = 1) -> Tensor:
    """Stretch in time, warp in frequency, crop and add noise.

    Args:
        logmel: (batch, frames, N_MELS), padded with silence.
        lengths: frames of each clip, (batch,).
        clips_per_speaker: so many clips in a row get the same voice and room.

    Returns:
        The same for other voices and rooms, (batch, frames', N_MELS).
    """
    batch, total, _ = logmel.shape
    rate = torch.exp(torch.empty(batch).uniform_(-config.stretch, config.stretch))
    stretched = (lengths * rate).clamp(min=1)
    frames = max(1, int(stretched.clamp(max=config.crop or math.inf).max()))
    first = torch.rand(batch) * (stretched - frames).clamp(min=0)
    time = (first[:, None] + torch.arange(frames)) / rate[:, None]
    # Mel is nearly logarithmic above 6 bins below zero, so a scale of frequency is a scale there.
    voices = batch // clips_per_speaker
    scale = torch.exp(torch.empty(voices).uniform_(-config.warp, config.warp)).repeat_interleave(
        clips_per_speaker
    )
    mel = ((torch.arange(N_MELS) + 6) * scale[:, None] - 6).clamp(0, N_MELS - 1)
    grid = torch.stack(
        [
            (mel * (2 / (N_MELS - 1)) - 1)[:, None, :].expand(-1, frames, -1),
            (time * (2 / max(1, total - 1)) - 1)[:, :, None].expand(-1, -1, N_MELS),
        ],
        dim=-1,
    )
    # Outside the clip grid_sample gives 0, so silence must be 0 while it runs.
    moved = F.grid_sample((logmel - PADDING)[:, None], grid, align_corners=True)[:, 0] + PADDING
    low, high = config.snr
    level = -torch.empty(voices, 1, 1).uniform_(low, high) / 4.343 - torch.log(torch.tensor(float(N_MELS)))
    level = torch.where(torch.rand(voices, 1, 1) < config.noise, level, torch.tensor(-100.0))
    floor = (level + 0.5 * torch.randn(voices, 1, N_MELS)).repeat_interleave(clips_per_speaker, 0)
    inside = (time <= lengths[:, None] - 1)[:, :, None]
    return torch.where(inside, torch.logaddexp(moved, floor), moved)


def mix(logmel: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """Two clips at once: the powers of each clip and of its partner added, both at the clip's level.

    Sources: Zhang et al., "mixup" (ICLR 2018), of sounds at one level as in Tokozume et al., "Learning from
    between-class examples" (ICLR 2018).

    Args:
        logmel: (batch, frames, N_MELS).
        partners: row of the other clip, (batch,).
        shares: of the clip itself, above 0 and at most 1, (batch,).
    """
    level = torch.logsumexp(logmel, dim=2).amax(dim=1)[:, None, None]  # of the loudest frame
    alike, share = logmel - level, shares[:, None, None]
    return level + torch.logaddexp(alike + share.log(), alike[partners] + (1 - share).clamp(min=1e-7).log())


def mask(features: Tensor, config: AugmentConfig) -> Tensor:
    """SpecAugment on normalised features (batch, N_MELS, frames): masked stretches become the mean, 0."""
    widths = (
        (config.time_masks, min(config.time_mask, features.shape[2] // 3), 3),
        (config.mel_masks, config.mel_mask, 2),
    )
    x = features[:, None]
    for count, width, axis in widths:
        for _ in range(count if width > 0 else 0):
            x = torchaudio.functional.mask_along_axis_iid(x, width, 0.0, axis)
    return x[:, 0]
