"""The student: a compact convolutional network, waveform in, emotion probabilities and dimensions out."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from numpy.typing import NDArray
from torch import Tensor, nn

from mifuse.clips.labels import LABELS
from mifuse.errors import MifuseError
from mifuse.models.frontend import N_MELS, FrontEndOutput, LogMel
from mifuse.models.prosody import ProsodyHead
from mifuse.models.speaker_norm import SpeakerNorm
from mifuse_runtime.dimensions import problems

# The one dial: width of the body. Parameters: xs 29 k, s 113 k, m 1 M. Widths between have names, too: w6.
SIZES = {"xs": 4, "s": 8, "m": 24}

CHANNELS = (3, 6, 8, 8, 8)  # of the blocks, in widths
# Of the blocks, in mel bins and frames. Time is halved once, behind the first block: at a quarter of the
# frames a student samples recordings every 64 ms, and known voices 2 points worse (docs/log).
STRIDES = ((2, 1), (2, 2), (2, 1), (2, 1), (2, 1))


def width_of(size: str) -> int:
    """Width of the body of a student of that size.

    Raises:
        MifuseError: there is no such size.

    >>> width_of("s"), width_of("w6")
    (8, 6)
    """
    if size in SIZES:
        return SIZES[size]
    if not re.fullmatch("w[1-9][0-9]?", str(size)):
        raise MifuseError(
            f"unknown student size {size!r}: use one of {', '.join(SIZES)}, or a width from w1 to w99"
        )
    return int(size[1:])


def size_of(width: int) -> str:
    """The one name of a width.

    >>> size_of(8), size_of(6)
    ('s', 'w6')
    """
    return next((name for name, known in SIZES.items() if known == width), f"w{width}")


class Block(nn.Module):
    """Convolution over mel bins and frames: what moves up or down a little in pitch stays the same."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class Student(nn.Module, PyTorchModelHubMixin):
    """Emotion classifier for the device.

    Args:
        labels: emotions, in the order of the probabilities; empty where it says dimensions alone.
        size: `xs`, `s`, `m`, or a width as `w6`.
        dropout: share of the embedding dropped in training and in MC-dropout draws; 0 is off.
        dimensions: such as arousal, name -> lowest and highest value; the student itself counts from 0 to 1.
        prosody: whether a second head takes pitch and voice quality, which `mifuse adapt` fits.

    >>> student = Student(size="xs").eval()
    >>> student(torch.zeros(2, 16_000)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        labels: Sequence[str] = LABELS,
        size: str = "s",
        dropout: float = 0.2,
        dimensions: Mapping[str, Sequence[float]] | tuple[()] = (),
        prosody: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise MifuseError(f"dropout = {dropout}: it must be at least 0 and below 1")
        self.labels = tuple(labels)
        self.dimensions = checked_ranges(dict(dimensions), self.labels)
        self.size = size
        channels = [1, *(width_of(size) * widths for widths in CHANNELS)]
        bins = N_MELS // math.prod(stride for stride, _ in STRIDES)
        self.frontend = LogMel()
        self.blocks = nn.Sequential(*map(Block, channels, channels[1:], STRIDES))
        self.blocks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a sixth faster on CPUs
        # Here and nowhere else: draws of MC dropout then cost one pass of the body, and channels dropped
        # in the blocks cost 2 points of UA on new speakers.
        self.dropout = nn.Dropout(dropout)
        values = 2 * channels[-1] * bins + 2 * N_MELS
        self.norm = SpeakerNorm(values, spectrum=2 * N_MELS)
        self.head = nn.Linear(values, len(self.labels) + len(self.dimensions))
        self.prosody = ProsodyHead(len(self.labels)) if prosody and self.labels else None
        # Weights of other strides have the same shapes, so a checkpoint says which ones it was fitted with.
        self.register_buffer("strides", torch.tensor(STRIDES))
        self.register_load_state_dict_pre_hook(_same_strides)  # type: ignore[no-untyped-call]

    def features(self, samples: Tensor) -> FrontEndOutput:
        """Log-mel (batch, N_MELS, frames), mask (batch, 1, frames) and spectrum of (batch, samples)."""
        features: FrontEndOutput = self.frontend(samples)
        return features

    def pooled(self, logmel: Tensor, mask: Tensor) -> Tensor:
        """Mean and deviation of the blocks' output over the speech frames, (batch, D).

        What a student of one's own overrides, in its class: on the device it is called without the rest.
        """
        x = self.blocks(logmel[:, None]).flatten(1, 2)
        weight = mask[:, :, :: math.prod(stride for _, stride in STRIDES)]
        weight = weight / weight.sum(dim=2, keepdim=True).clamp(min=1e-3)
        mean = (x * weight).sum(dim=2)
        variance = ((x - mean[:, :, None]) ** 2 * weight).sum(dim=2)
        return torch.cat([mean, torch.sqrt(variance + 1e-5)], dim=1)

    def embed(self, logmel: Tensor, mask: Tensor, spectrum: Tensor) -> Tensor:
        """Clip embedding: `pooled`, and the spectrum, (batch, D)."""
        return torch.cat([self.pooled(logmel, mask), spectrum], dim=1)

    def relative(self, logmel: Tensor, mask: Tensor, spectrum: Tensor, clips_per_speaker: int = 0) -> Tensor:
        """`embed` within the speaker, whose `clips_per_speaker` clips follow one another; 0: nobody known."""
        z: Tensor = self.norm(self.embed(logmel, mask, spectrum), clips_per_speaker)
        return z

    def logits(self, logmel: Tensor, mask: Tensor, spectrum: Tensor, clips_per_speaker: int = 0) -> Tensor:
        """Scores before the softmax, (batch, C), and with dimensions before their sigmoid, (batch, C + V).

        From `features`; `clips_per_speaker` as in `relative`.
        """
        scores: Tensor = self.head(self.dropout(self.relative(logmel, mask, spectrum, clips_per_speaker)))
        return scores

    def forward(self, samples: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Probabilities (batch, C) of float32 samples (batch, n) at 16 kHz in [-1, 1].

        With dimensions also these, from 0 to 1, (batch, V); without emotions these alone.
        """
        if self.prosody is None:
            return answered(self.logits(*self.features(samples)), len(self.labels))
        *view, power = self.frontend(samples, low=True)
        values, unknown = self.prosody.measure(power), np.full(len(samples), -1)
        return answered(self.with_prosody(self.logits(*view), values, unknown), len(self.labels))

    def with_prosody(self, scores: Tensor, values: Tensor, speakers: NDArray[np.int64]) -> Tensor:
        """Scores (…, N, C + V) and those of the head for measures (N, M); `speakers` as `speaker_ids`."""
        assert self.prosody is not None
        more = self.prosody(self.prosody.within(values, speakers))
        return scores + nn.functional.pad(more, (0, len(self.dimensions)))

    def speaker_head(self) -> NDArray[np.float32]:
        """Weights and bias of the heads, a row for each label and dimension.

        For z-scores within a speaker whom the device knows: of `pooled`, of prosody if the student has a head
        for it, and of the spectrum.
        """
        weight, bias = self.head.weight.data, self.head.bias.data
        if self.prosody is not None:
            more = torch.cat([self.prosody.weight, self.prosody.bias[:, None]], dim=1)
            more = nn.functional.pad(more, (0, 0, 0, len(self.dimensions)))
            own, spectrum = weight.tensor_split([-self.norm.spectrum], dim=1)
            weight, bias = torch.cat([own, more[:, :-1], spectrum], dim=1), bias + more[:, -1]
        return np.asarray(torch.cat([weight, bias[:, None]], dim=1).cpu().numpy())

    @torch.no_grad()
    def move_prior(self, shares: NDArray[np.float64]) -> None:
        """From equally frequent classes, as in training, to these shares (C,): a constant for each class."""
        moved = torch.from_numpy(np.log(shares * len(shares)))
        self.head.bias[: len(self.labels)].add_(moved.to(self.head.bias))

    @torch.no_grad()
    def begin_as(self, other: Student) -> None:
        """Take the weights of a student of the same size and labels, whatever dimensions either has."""
        mine = self.state_dict()
        weights = {key: value for key, value in other.state_dict().items() if key in mine}
        weights = {key: value for key, value in mine.items() if key.startswith("prosody.")} | weights
        names, theirs = ((*model.labels, *model.dimensions) for model in (self, other))
        shared = [name for name in names if name in theirs]
        for key in ("head.weight", "head.bias"):
            rows = mine[key].clone()
            rows[[names.index(name) for name in shared]] = weights[key][
                [theirs.index(name) for name in shared]
            ]
            weights[key] = rows
        self.load_state_dict(weights)

    def standalone(self) -> Standalone:
        """A copy that knows no speaker, for the device: the norm is part of its head."""
        return Standalone(copy.deepcopy(self))


def same_shapes(a: nn.Module, b: nn.Module) -> bool:
    """Whether the weights of one fit into the other, dimensions and prosody that only one has apart."""
    mine, theirs = (
        {key: value for key, value in model.state_dict().items() if not key.startswith("prosody.")}
        for model in (a, b)
    )
    # The head has a row for each dimension: `Student.begin_as` takes those that both have.
    return mine.keys() == theirs.keys() and all(
        mine[k].shape[k.startswith("head.") :] == theirs[k].shape[k.startswith("head.") :] for k in mine
    )


def answered(scores: Tensor, classes: int) -> Tensor | tuple[Tensor, Tensor]:
    """Scores (…, C + V) -> probabilities (…, C), and dimensions (…, V) from 0 to 1, or what there is."""
    if not classes:
        return torch.sigmoid(scores)
    probs = torch.softmax(scores[..., :classes], dim=-1)
    return (probs, torch.sigmoid(scores[..., classes:])) if scores.shape[-1] > classes else probs


def checked_ranges(
    ranges: Mapping[str, Sequence[float]], labels: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Dimensions as they are kept.

    Raises:
        MifuseError: a name or a range that is none, or a name that is a label, too.
    """
    problem = next(problems(ranges), None)
    if not labels and not ranges:
        problem = "neither emotions nor dimensions: a model says at least two emotions, or one dimension"
    if both := sorted(set(ranges) & set(labels)):
        problem = f"{both[0]!r} is a label and a dimension: rename one"
    if problem:
        raise MifuseError(problem)
    return {name: (float(low), float(high)) for name, (low, high) in ranges.items()}


def _same_strides(_: nn.Module, weights: dict[str, Tensor], prefix: str, *__: object) -> None:
    strides = weights.get(f"{prefix}strides")
    if strides is None or strides.tolist() != [list(stride) for stride in STRIDES]:
        raise RuntimeError("its blocks have the strides of an earlier version")


class Standalone(nn.Module):
    """Student of single clips; probabilities as the student gives them."""

    frontend: LogMel
    prosody: ProsodyHead | None
    _pooled: Callable[..., Tensor]

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.labels, self.dimensions = student.labels, student.dimensions
        self.register_module("prosody", None)
        for name, child in student.named_children():
            if name not in ("dropout", "norm", "head"):
                self.add_module(name, child)
        for name, weights in student.named_parameters(recurse=False):
            self.register_parameter(name, weights)
        self._pooled = type(student).pooled
        norm, head = student.norm, torch.from_numpy(student.speaker_head())
        statistics = norm.state_dict()
        mean, variance = (statistics[f"running_{name}"][: -norm.spectrum] for name in ("mean", "var"))
        if self.prosody is not None:
            mean = torch.cat([mean, self.prosody.mean])
            variance = torch.cat([variance, self.prosody.deviation**2 - norm.eps])
        weight = head[:, : len(mean)] * torch.rsqrt(variance + norm.eps)
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.weight.data, self.head.bias.data = weight, head[:, -1] - weight @ mean

    def forward(self, samples: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.prosody is None:
            logmel, mask, _ = self.frontend(samples)
            return answered(self.head(self._pooled(self, logmel, mask)), len(self.labels))
        logmel, mask, _, power = self.frontend(samples, low=True)
        values = self.prosody.bounded(self.prosody.measure(power))
        embedding = torch.cat([self._pooled(self, logmel, mask), values], dim=1)
        return answered(self.head(embedding), len(self.labels))
