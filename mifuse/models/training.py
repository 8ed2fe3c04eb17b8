"""One training loop for all that learns here: classifier, student, baselines and oracle fit soft labels."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mifuse.config import require
from mifuse.errors import TrainingError
from mifuse.models.augment import AugmentConfig, distort, mask, mix
from mifuse.models.dimensions import DimensionTargets, concordance_loss
from mifuse.models.features import Features
from mifuse.models.speaker_norm import CLIPS_PER_SPEAKER, FEWEST, Sampler
from mifuse.models.student import Student, answered

_LOGGER = logging.getLogger(__name__)
Array = NDArray[np.float64]
MIXING = 0.4  # both parameters of the beta distribution of shares: one clip prevails in most mixtures
View = tuple[Any, ...]  # what `logits` takes: log-mel, speech mask, spectrum, clips of one speaker in a row
Loss = Callable[[NDArray[np.int64], Tensor], tuple[dict[str, Tensor], Tensor]]
"""Which clips (batch,), their log-mel (batch, frames, N_MELS) -> named terms, all recorded and the one called
`loss` minimised, and scores of the classes (batch, C)."""


@dataclass(frozen=True)
class FitConfig:
    """How a student is fitted to soft labels."""

    steps: int = 1200  # optimiser steps in all
    steps_per_epoch: int = 50  # steps between two checkpoints
    batch_size: int = 48  # clips
    lr: float = 3e-3  # peak of the one-cycle schedule
    weight_decay: float = 0.02  # 0 is off
    label_smoothing: float = 0.05  # share of the uniform distribution in each label; 0 is off
    balance: float = 1.0  # 1: classes are drawn equally often, 0: clips are
    speakers: float = 0.5  # share of batches in which the speakers are known; 0 is off
    mix: float = 0.0  # share of the other batches in which each clip is mixed with another; 0 is off
    mix_up_to: int = 600  # clips in all: of more each is drawn too seldom to be mixed
    diversity: float = 0.0  # λ of the diversity term; 0 is off
    dimensions: float = 1.0  # weight of 1 - CCC of the dimensions, where there are any; 0 is off
    momentum: float = 0.998  # m of the moving average of the weights, per step; 0 follows the student
    collapse: float = 0.35  # nats: stop when the predicted classes' entropy stays below; 0 is off
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        one, more = (0, 1), (0, math.inf)
        require(self, steps=(1, math.inf), steps_per_epoch=(1, math.inf), batch_size=(2, math.inf), lr=more)
        require(self, weight_decay=more, label_smoothing=one, balance=one, speakers=one, mix=one)
        require(self, mix_up_to=more, diversity=more, dimensions=more)
        require(self, momentum=one, collapse=more)


class Trainer:
    """A student being fitted, and its moving average; `training_state` keeps and resumes it.

    Every step draws its own random numbers from (seed, step), so that a resumed run is the same run.
    Under `accelerate launch` each process takes its part of every batch.

    Args:
        student: the model, trained in place.
        features: the clips.
        config: how.
        seed: of sampling, augmentation and dropout.
        earlier: a student whose answers to the same clips are labels, too, so that what it knows is not
            forgotten. Source: Li and Hoiem, "Learning without forgetting" (ECCV 2016).
        keep: weight of these labels.
        left_out: clips that are never drawn.
        dimensions: what the clips are taught of the student's dimensions; None: nothing.
    """

    def __init__(
        self,
        student: Student,
        features: Features,
        config: FitConfig,
        seed: int = 0,
        *,
        earlier: Student | None = None,
        keep: float = 1.0,
        left_out: NDArray[np.int64] | None = None,
        dimensions: DimensionTargets | None = None,
    ) -> None:
        from accelerate import Accelerator

        self.config, self.features, self.seed = config, features, seed
        cuda = torch.cuda.is_available()
        self.accelerator = Accelerator(
            mixed_precision="bf16" if cuda or _cpu_has_bf16() else "no", cpu=not cuda
        )
        self.optimizer = torch.optim.AdamW(
            student.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.student = student.to(self.accelerator.device)
        self.average = frozen_copy(self.student)
        self.keep, self.left_out, self.dimensions = keep, left_out, dimensions
        self.earlier = None if earlier is None else frozen_copy(earlier).to(self.accelerator.device)
        self.model, self.optimizer = self.accelerator.prepare(_Logits(self.student), self.optimizer)
        self.step = 0
        self.clips_per_speaker = 0  # clips of one speaker in a row in this step's batch; 0: clips of anybody
        self.history: list[dict[str, float]] = []

    @property
    def mixes(self) -> bool:
        """Whether clips are mixed."""
        return self.config.mix > 0 and len(self.features.speakers) <= self.config.mix_up_to

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return math.ceil(self.config.steps / self.config.steps_per_epoch)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    def run_epoch(self, labels: Array, loss: Loss | None = None) -> dict[str, float]:
        """Fit the soft labels (N, C) for one epoch; its means are returned and kept in `history`.

        Args:
            loss: another loss than that of the labels, which then only balance the sampling.

        Raises:
            TrainingError: the loss is not finite, or all predictions fall on one class.
        """
        started = time.perf_counter()
        loading = clips = 0.0
        sums: dict[str, float] = {}
        predicted = torch.zeros(labels.shape[1])
        odds = _odds(labels, self.config.balance)
        if self.left_out is not None:
            odds[self.left_out] = 0
        sampler = Sampler(odds, self.features.speakers)
        loss = loss or partial(self._soft_label_loss, labels)
        last = min(self.step + self.config.steps_per_epoch, self.config.steps)
        count = last - self.step
        while self.step < last:
            before = time.perf_counter()
            index, logmel = self._batch(sampler)
            loading += time.perf_counter() - before
            terms, scores = self._train_step(index, logmel, loss)
            clips += len(index)
            if len(predicted):
                predicted += torch.bincount(scores.argmax(1), minlength=len(predicted)).cpu()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / count
        seconds = time.perf_counter() - started
        share = predicted / predicted.sum()  # of no emotions it is empty, and their entropy 0
        record = {
            "epoch": self.epoch + 1,
            "step": self.step,
            **sums,
            "entropy": float(-(share * share.clamp(min=1e-9).log()).sum()),
            "seconds": seconds,
            "clips_per_second": clips / seconds,
            "loader_share": loading / seconds,
        }
        self.history.append(record)
        self._check_collapse(share)
        return record

    def _batch(self, sampler: Sampler) -> tuple[NDArray[np.int64], Tensor]:
        generator = np.random.default_rng([self.seed, self.step])
        processes = self.accelerator.num_processes
        size = self.config.batch_size // processes
        known = generator.random() < self.config.speakers and sampler.knows_speakers and size >= FEWEST
        speakers = max(1, size // CLIPS_PER_SPEAKER)
        self.clips_per_speaker = size // speakers if known else 0
        drawn = (
            sampler.of_speakers(generator, speakers * processes, self.clips_per_speaker) if known else None
        )
        index = sampler.clips(generator, size * processes) if drawn is None else drawn
        index = index.reshape(processes, -1)[self.accelerator.process_index]
        return index, self.features.batch(index)

    def view(
        self, index: NDArray[np.int64], logmel: Tensor, mixture: tuple[Tensor, Tensor] | None = None
    ) -> View:
        """The batch's clips, augmented, as `Student.logits` takes them; others at every call.

        Args:
            mixture: partner of each clip and the clip's own share, as `augment.mix` takes them.
        """
        lengths = torch.from_numpy(self.features.lengths[index])
        distorted = distort(logmel, lengths, self.config.augment, self.clips_per_speaker or 1)
        if mixture is not None:
            distorted = mix(distorted, *mixture)
        x, speech, spectrum = self.student.frontend.normalise(distorted.to(self.accelerator.device))
        return mask(x, self.config.augment), speech, spectrum, self.clips_per_speaker

    def _mixture(self, clips: int) -> tuple[Tensor, Tensor]:
        """Partner of each clip of a batch, and the clip's own share."""
        shares = torch.distributions.Beta(MIXING, MIXING).sample((clips,))
        return torch.randperm(clips), torch.maximum(shares, 1 - shares)

    def _train_step(
        self, index: NDArray[np.int64], logmel: Tensor, loss: Loss
    ) -> tuple[dict[str, float], Tensor]:
        config = self.config
        # The process number keeps the random numbers of several processes apart.
        torch.manual_seed((self.seed * 1_000_003 + self.step) * 64 + self.accelerator.process_index)
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * _one_cycle(self.step / config.steps)
        terms, scores = loss(index, logmel)
        if not torch.isfinite(terms["loss"]):
            value = terms["loss"].item()
            raise TrainingError(
                f"the loss is {value} at step {self.step}: lower the learning rate (lr = {config.lr:g})"
            )
        self.optimizer.zero_grad()
        self.accelerator.backward(terms["loss"])
        self.optimizer.step()
        self.step += 1
        self._follow()
        return {name: float(value.detach()) for name, value in terms.items()}, scores.detach()

    def _soft_label_loss(
        self, labels: Array, index: NDArray[np.int64], logmel: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        config = self.config
        target, mixture = torch.from_numpy(labels[index]), None
        values = None if self.dimensions is None else self.dimensions.batch(index)
        # Clips of one speaker are held against each other: mixed ones would move what they are held against.
        if self.mixes and not self.clips_per_speaker and float(torch.rand(())) < config.mix:
            partners, _ = mixture = self._mixture(len(index))
            target = _mixed(target, mixture)
            values = values and (_mixed(values[0], mixture), values[1] * values[1][partners])
        view = self.view(index, logmel, mixture)
        target = target.to(view[0])
        uniform = 1 / max(1, target.shape[1])
        target = target * (1 - config.label_smoothing) + config.label_smoothing * uniform
        with self.accelerator.autocast():
            scores = self.model(*view).float()
        log_probs = F.log_softmax(scores[:, : target.shape[1]], dim=1)
        cross_entropy = -(target * log_probs).sum(1).mean()
        mean = self._mean_over_processes(log_probs.exp().mean(0))
        diversity = -(mean * mean.clamp(min=1e-9).log()).sum()
        loss = cross_entropy - config.diversity * diversity
        terms = {"loss": loss, "cross_entropy": cross_entropy, "diversity": diversity}
        if values is not None:
            terms["dimensions"] = concordance_loss(scores[:, target.shape[1] :].sigmoid(), *values)
            loss = terms["loss"] = loss + config.dimensions * terms["dimensions"]
        if self.earlier is not None:
            terms["remembered"] = self.imitation(self.earlier, view, scores)
            terms["loss"] = loss + self.keep * terms["remembered"]
        return terms, log_probs

    def imitation(self, other: Student, view: View, scores: Tensor) -> Tensor:
        """How far scores (batch, C + V) are from a frozen student's answers to the same view.

        The cross-entropy of the emotions, and 1 - CCC of the dimensions if both have the same ones.
        """
        classes = len(other.labels)
        with torch.no_grad(), self.accelerator.autocast():
            said = other.logits(*view).float()
        distance = -(said[:, :classes].softmax(1) * scores[:, :classes].log_softmax(1)).sum(1).mean()
        if scores.shape == said.shape and scores.shape[1] > classes:
            theirs, mine = said[:, classes:].sigmoid(), scores[:, classes:].sigmoid()
            distance = distance + self.config.dimensions * concordance_loss(
                mine, theirs, torch.ones_like(mine)
            )
        return distance

    def _mean_over_processes(self, mean: Tensor) -> Tensor:
        """The mean of the whole batch, with this process's gradient (DDP averages the gradients)."""
        if self.accelerator.num_processes == 1:
            return mean
        whole: Tensor = self.accelerator.reduce(mean.detach(), reduction="mean")
        return whole + mean - mean.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        # Young averages follow faster, so that a student started from scratch is not held back.
        momentum = min(self.config.momentum, (1 + self.step) / (10 + self.step))
        for mine, theirs in zip(
            self.average.state_dict().values(), self.student.state_dict().values(), strict=True
        ):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - momentum)
            else:
                mine.copy_(theirs)

    def _check_collapse(self, share: Tensor) -> None:
        recent = [record["entropy"] for record in self.history[-3:]]
        if len(share) and len(recent) == 3 and max(recent) < self.config.collapse:
            top = self.student.labels[int(share.argmax())]
            raise TrainingError(
                f"the student collapsed: {100 * share.max():.0f} % of its predictions are {top!r}; "
                "raise diversity or balance, or look at the class prior of the draws"
            )


def frozen_copy(student: Student) -> Student:
    """A copy that is not trained."""
    return copy.deepcopy(student).requires_grad_(False).eval()


class _Logits(torch.nn.Module):
    """Makes `logits` the forward pass, which is what DistributedDataParallel needs to see."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, *view: Any) -> Tensor:
        return self.student.logits(*view)


def _mixed(values: Tensor, mixture: tuple[Tensor, Tensor]) -> Tensor:
    """Each row mixed with its partner's."""
    partners, shares = mixture[0], mixture[1][:, None]
    return shares * values + (1 - shares) * values[partners]


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware: twice as fast there, far slower elsewhere."""
    ask: Callable[[], dict[str, Any]] = getattr(
        torch.cpu, "get_capabilities", dict
    )  # absent from older torch
    capabilities = ask()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _odds(labels: Array, balance: float) -> Array:
    """How often each clip is drawn, (N,); balance 0: clips equally often, 1: classes equally often.

    Without emotions all alike.
    """
    if not labels.shape[1]:
        return np.ones(len(labels))
    return np.asarray((labels / np.maximum(labels.mean(0), 1e-3)).sum(1) ** balance)


def _one_cycle(progress: float) -> float:
    """Share of the peak learning rate: linear over the first tenth, then half a cosine down to 0."""
    if progress < 0.1:
        return 0.04 + 0.96 * progress / 0.1
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


def predict(model: Student, features: Features, batch_size: int = 64) -> Array:
    """Probabilities of every clip, (N, C), without dropout."""
    return predict_all(model, features, batch_size)[:, : len(model.labels)]


@torch.inference_mode()
def predict_all(model: Student, features: Features, batch_size: int = 64) -> Array:
    """Probabilities and dimensions of every clip, (N, C + V), without dropout."""
    return _answers(model, features, model.head(relative(model, features, batch_size)))


def mc_dropout_draws(model: Student, features: Features, draws: int, seed: int = 0) -> Array:
    """Draws of the classifier: its head with dropout on, (draws, N, C)."""
    return mc_dropout_all(model, features, draws, seed)[..., : len(model.labels)]


@torch.inference_mode()
def mc_dropout_all(model: Student, features: Features, draws: int, seed: int = 0) -> Array:
    """The same draws with the dimensions, (draws, N, C + V)."""
    z = relative(model, features)
    torch.manual_seed(seed)
    drawn = [model.head(F.dropout(z, model.dropout.p, training=True)) for _ in range(draws)]
    return _answers(model, features, torch.stack(drawn))


def _answers(model: Student, features: Features, scores: Tensor) -> Array:
    if model.prosody is not None:
        scores = model.with_prosody(scores, features.prosody().to(scores), features.speakers)
    found = answered(scores, len(model.labels))
    parts = found if isinstance(found, tuple) else (found,)
    return np.asarray(torch.cat(parts, dim=-1).double().cpu().numpy())


@torch.no_grad()
def relative(model: Student, features: Features, batch_size: int = 64) -> Tensor:
    """Embeddings of every clip, (N, D), each within its speaker's where these are known."""
    return model.norm.within(embeddings(model, features, batch_size), features.speakers)


@torch.no_grad()
def embeddings(model: Student, features: Features, batch_size: int = 64) -> Tensor:
    """Embeddings of every clip as they are, (N, D)."""
    model.eval()
    device = next(model.parameters()).device
    batches = (features.batch(index).to(device) for index in features.batches(batch_size))  # short first
    rows = [model.embed(*model.frontend.normalise(logmel)) for logmel in batches]
    return torch.cat(rows)[np.argsort(np.argsort(features.lengths, kind="stable"), kind="stable")]
