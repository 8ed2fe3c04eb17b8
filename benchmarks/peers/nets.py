"""Small nets of others, built after their papers with random weights: time does not depend on weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def _conv(
    c_in: int, c_out: int, size: int = 3, stride: int = 1, *, groups: int = 1, act: bool = True
) -> nn.Module:
    conv = nn.Conv2d(c_in, c_out, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), *([nn.ReLU()] if act else []))


class Wav2SmallLike(nn.Module):
    """After arXiv 2408.13920: samples to arousal, dominance, valence; 72 k parameters with its front end.

    26 mel bins from windows of 64 samples, 32 apart, by convolution; seven 3x3 convolutions of 13 channels;
    one pooling; attention over time. (1, n) -> (1, 3).
    """

    def __init__(self, window: int = 64, bins: int = 26, channels: int = 13) -> None:
        super().__init__()
        self.window, places = window, channels * (bins // 2)
        self.dft = nn.Conv1d(1, 2 * (window // 2 + 1), window, window // 2, bias=False)
        self.mel = nn.Linear(window // 2 + 1, bins, bias=False)
        self.before = nn.Sequential(_conv(1, channels), *(_conv(channels, channels) for _ in range(2)))
        self.after = nn.Sequential(*(_conv(channels, channels) for _ in range(4)))
        self.weight, self.value = nn.Linear(places, places), nn.Linear(places, places)
        self.head = nn.Linear(places, 3)

    def forward(self, samples: Tensor) -> Tensor:
        spectra = self.dft(samples[:, None]).square()
        power = spectra[:, : self.window // 2 + 1] + spectra[:, self.window // 2 + 1 :]
        mel = self.mel(power.transpose(1, 2)).abs().add(1e-6).log()
        found = functional.max_pool2d(self.before(mel[:, None]), 3, 2, 1)
        found = self.after(found).permute(0, 2, 1, 3).flatten(2)
        pooled = (self.value(found) * self.weight(found).softmax(1)).sum(1)
        scores: Tensor = self.head(pooled)
        return scores


class _Universal(nn.Module):
    """Universal inverted bottleneck: depthwise, widen, depthwise, narrow; a depthwise of size 0 is none."""

    def __init__(self, c_in: int, block: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        c_out, first, middle, stride, widen = block
        wide = c_in * widen
        parts: list[nn.Module] = []
        if first:
            parts.append(_conv(c_in, c_in, first, 1 if middle else stride, groups=c_in, act=False))
        parts.append(_conv(c_in, wide, 1))
        if middle:
            parts.append(_conv(wide, wide, middle, stride, groups=wide))
        self.parts = nn.Sequential(*parts, _conv(wide, c_out, 1, act=False))
        self.same = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.parts(x)
        return x + found if self.same else found


# c_out, first depthwise, middle depthwise, stride, widening: table of MobileNetV4-Conv-S, arXiv 2404.10518.
BLOCKS = [
    (96, 5, 5, 2, 3), *[(96, 0, 3, 1, 2)] * 4, (96, 3, 0, 1, 4),
    (128, 3, 3, 2, 6), (128, 5, 5, 1, 4), (128, 0, 5, 1, 4), (128, 0, 5, 1, 3), *[(128, 0, 3, 1, 4)] * 2,
]  # fmt: skip


class MobileNetV4Like(nn.Module):
    """MobileNetV4-Conv-S on log-mels, (1, 1, frames, 128) -> (1, 4); the log-mels are not part of it."""

    def __init__(self) -> None:
        super().__init__()
        parts = [
            _conv(1, 32, 3, 2),
            _conv(32, 32, 3, 2),
            _conv(32, 32, 1),
            _conv(32, 96, 3, 2),
            _conv(96, 64, 1),
        ]
        width = 64
        for block in BLOCKS:
            parts.append(_Universal(width, block))
            width = block[0]
        self.parts = nn.Sequential(*parts, _conv(width, 960, 1), nn.AdaptiveAvgPool2d(1), _conv(960, 1280, 1))
        self.head = nn.Linear(1280, 4)

    def forward(self, mel: Tensor) -> Tensor:
        found: Tensor = self.head(self.parts(mel).flatten(1))
        return found


def small(name: str) -> tuple[nn.Module, tuple[Tensor, ...], dict[str, Any]]:
    """Model, an input, and the axes of its ONNX inputs that may vary."""
    if name == "wav2small":
        return Wav2SmallLike(), (torch.zeros(1, 48_000),), {"samples": {1: "n"}}
    return MobileNetV4Like(), (torch.zeros(1, 1, 300, 128),), {"mel": {2: "frames"}}
