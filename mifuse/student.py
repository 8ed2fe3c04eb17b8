"""The student: a compact convolutional network, waveform in, emotion probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from mifuse.errors import MifuseError
from mifuse.frontend import N_MELS, LogMel
from mifuse.labels import LABELS

# The one dial: channels of the body. Parameters: xs about 50 k, s 250 k, m 1 M.
SIZES = {"xs": 48, "s": 112, "m": 232}


class Block(nn.Module):
    """Residual block: two convolutions over time."""

    def __init__(self, channels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.norm1 = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.norm2 = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.dropout(self.norm2(self.conv2(y))))


class Student(nn.Module, PyTorchModelHubMixin):
    """Emotion classifier for the device.

    Args:
        labels: emotions, in the order of the probabilities.
        size: `xs`, `s` or `m`.
        dropout: share of activations dropped in training and in MC-dropout draws; 0 is off.

    >>> student = Student(size="xs").eval()
    >>> student(torch.zeros(2, 16_000)).shape
    torch.Size([2, 4])
    """

    def __init__(self, labels: Sequence[str] = LABELS, size: str = "s", dropout: float = 0.2) -> None:
        super().__init__()
        if size not in SIZES:
            raise MifuseError(f"unknown student size {size!r}: use one of {', '.join(SIZES)}")
        if not 0 <= dropout < 1:
            raise MifuseError(f"dropout = {dropout}: it must be at least 0 and below 1")
        self.labels = tuple(labels)
        self.size = size
        channels = SIZES[size]
        self.frontend = LogMel()
        self.stem = nn.Conv1d(N_MELS, channels, 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm1d(channels)
        self.blocks = nn.Sequential(*(Block(channels, 3, dropout) for _ in range(3)))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * channels, len(self.labels))

    def features(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel (batch, N_MELS, frames) and speech mask (batch, 1, frames) of (batch, samples)."""
        features: tuple[Tensor, Tensor] = self.frontend(samples)
        return features

    def embed(self, logmel: Tensor, mask: Tensor) -> Tensor:
        """Clip embedding: mean and deviation over the speech frames, (batch, 2 * channels)."""
        x = torch.relu(self.stem_norm(self.stem(logmel)))
        x = self.blocks(x)
        weight = mask[:, :, ::2]
        weight = weight / weight.sum(dim=2, keepdim=True).clamp(min=1e-3)
        mean = (x * weight).sum(dim=2)
        variance = ((x - mean[:, :, None]) ** 2 * weight).sum(dim=2)
        return torch.cat([mean, torch.sqrt(variance + 1e-5)], dim=1)

    def logits(self, logmel: Tensor, mask: Tensor) -> Tensor:
        """Scores before the softmax, (batch, C), from `features`."""
        scores: Tensor = self.head(self.dropout(self.embed(logmel, mask)))
        return scores

    def forward(self, samples: Tensor) -> Tensor:
        """Probabilities (batch, C) of float32 samples (batch, n) at 16 kHz in [-1, 1]."""
        return torch.softmax(self.logits(*self.features(samples)), dim=-1)
