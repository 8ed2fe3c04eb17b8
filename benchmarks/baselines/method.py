"""What the published methods share: what they are given, their training loop, and terms of their losses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mifuse.adaptation import first_student
from mifuse.fusion.recipes import AdaptConfig
from mifuse.models.features import Features
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer, View, relative

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Terms = dict[str, Tensor]

THIRD = 1 / 3  # of the learning rate, see `at_lower_rate`


@dataclass(frozen=True)
class Task:
    """What every baseline is given; there are no labels in it."""

    features: Features  # of N target clips
    lalm_draws: Array  # (K, N, C)
    classifier: Student  # the source model; it is not changed
    config: AdaptConfig  # of the student and its training
    seed: int = 0

    def first_student(self) -> Student:
        """The student before its first step, with the network's head alone."""
        config = replace(self.config, prosody=False)
        return first_student(self.classifier, self.classifier.labels, config, self.seed)


@dataclass(frozen=True)
class Baseline:
    """A row of the table: call it to get its student."""

    title: str
    sees: str  # LALM | classifier | both: whose answers teach the student
    about: str  # one line for the table
    run: Callable[[Task], Student]

    def __call__(self, task: Task) -> Student:
        return self.run(task)


class Method:
    """A student trained on unlabelled clips by a loss of its own, in one process.

    Clips are drawn equally often, as in all of these papers. A method may collapse: then that is its result.
    """

    def __init__(self, task: Task, student: Student, config: FitConfig | None = None) -> None:
        self.task = task
        config = replace(config or task.config.fit, balance=0.0, collapse=0.0)
        self.fit = Trainer(student, task.features, config, task.seed)
        self.device: torch.device = self.fit.accelerator.device

    def start_epoch(self) -> None:
        """What happens before each epoch; nothing, unless the method says so."""

    def loss(self, index: Indices, logmel: Tensor) -> tuple[Terms, Tensor]:
        """Terms of the loss and logits of one batch, see `mifuse.models.training.Loss`."""
        raise NotImplementedError

    def adapted(self) -> Student:
        """Train for the whole budget: the moving average after the last step."""
        everywhere = np.ones((len(self.task.features), len(self.fit.student.labels)))
        while self.fit.epoch < self.fit.epochs:
            self.start_epoch()
            self.fit.run_epoch(everywhere, self.loss)
        return self.fit.average.cpu().eval()

    def forward(self, view: View) -> tuple[Tensor, Tensor]:
        """Embeddings of unit length (batch, D) and logits (batch, C) of a batch."""
        student = self.fit.student
        with self.fit.accelerator.autocast():
            embedding = student.relative(*view)
            logits = student.head(student.dropout(embedding))
        return F.normalize(embedding.float(), dim=1), logits.float()

    def plain(self, logmel: Tensor) -> View:
        """A batch's clips without augmentation.

        The papers' views are weak (crop, flip). Under strong ones, terms that only ask for sure and diverse
        predictions are met by telling augmentations apart: DINE's fine-tuning then left two of four classes
        to the clips themselves, though not to the augmented ones (nemo to ravdess).
        """
        return *self.fit.student.frontend.normalise(logmel.to(self.device)), self.fit.clips_per_speaker

    @torch.no_grad()
    def survey(self) -> tuple[Tensor, Tensor]:
        """Embeddings of unit length (N, D) and log-probabilities (N, C) of all clips, as in inference."""
        embeddings = relative(self.fit.student, self.task.features)
        log_probs = F.log_softmax(self.fit.student.head(embeddings), dim=1)
        return F.normalize(embeddings, dim=1), log_probs


def source_copy(task: Task) -> Student:
    """The classifier as the first student of a method that adapts it."""
    return copy.deepcopy(task.classifier).requires_grad_(True)


def at_lower_rate(task: Task, share: float = 0.1) -> FitConfig:
    """The budget at a `share` of the learning rate, for labels that are worth less than the default's.

    A copy of the classifier that has nothing but its own predictions to hold on to forgets them at the whole
    rate before it follows them: NRC then fell from 48 to 28 % (UA, mean of nemo>ravdess and ravdess>nemo),
    PLUE to 37; at a tenth they end at 42 and 43, SHOT at 48 either way. Labels of a LALM that stay as they
    are are learnt by heart: at `THIRD` LALM-only distillation is 3 points better, ProDe 1 (docs/log).
    """
    return replace(task.config.fit, lr=share * task.config.fit.lr)


def entropy(log_probs: Tensor) -> Tensor:
    """Mean entropy of the rows, nats: (batch, C) -> scalar."""
    return -(log_probs.exp() * log_probs).sum(1).mean()


def diversity(log_probs: Tensor) -> Tensor:
    """Entropy of the mean of the rows, nats: (batch, C) -> scalar; ln C where no class is preferred."""
    mean = log_probs.exp().mean(0)
    return -(mean * mean.clamp(min=1e-9).log()).sum()


def cross_entropy(targets: Tensor, log_probs: Tensor) -> Tensor:
    """Mean cross-entropy against soft targets, nats: (batch, C), (batch, C) -> scalar."""
    return -(targets * log_probs).sum(1).mean()


def nearest(queries: Tensor, bank: Tensor, own: Tensor, count: int) -> Tensor:
    """Rows of the bank that are most similar to each query, (batch, count), the query's own row left out.

    Args:
        queries: (batch, D) of unit length.
        bank: (N, D) of unit length.
        own: (batch,) row of each query.
    """
    similarity = queries @ bank.T
    similarity[torch.arange(len(own), device=own.device), own] = -torch.inf
    return similarity.topk(min(count, len(bank) - 1), dim=1).indices
