"""TENT: Wang, Shelhamer, Liu, Olshausen, Darrell, "Tent: Fully Test-time Adaptation by Entropy Minimization",
ICLR 2021."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.method import Indices, Method, Task, Terms, entropy, source_copy
from mifuse.models.features import Features
from mifuse.models.student import Student


@dataclass(frozen=True)
class TentConfig:
    """The paper's setting."""

    lr: float = 1e-3  # peak
    passes: int = 1  # over the clips, `fit.steps` at most


class Tent(Method):
    """Minimise the entropy of predictions by scales and shifts of the batch norms, with batch statistics.

    One pass, where other methods use the whole budget: nothing but the number of steps keeps the entropy from
    falling until all clips are of one class.
    """

    def __init__(self, task: Task, settings: TentConfig | None = None) -> None:
        settings, fit = settings or TentConfig(), task.config.fit
        student = source_copy(task).requires_grad_(False)
        for norm in _norms(student):
            norm.requires_grad_(True)
        steps = min(fit.steps, math.ceil(settings.passes * len(task.features) / fit.batch_size))
        super().__init__(task, student, replace(fit, steps=steps, lr=settings.lr, weight_decay=0.0))

    def loss(self, index: Indices, logmel: Tensor) -> tuple[Terms, Tensor]:
        for module in self.fit.student.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        _, logits = self.forward(self.plain(logmel))
        return {"loss": entropy(F.log_softmax(logits, dim=1))}, logits

    def adapted(self) -> Student:
        """The student, which normalises by the target's statistics; the paper's by those of each batch."""
        student = super().adapted()
        _follow(student, self.task.features, self.fit.config.batch_size)
        return student.eval()


def _norms(student: Student) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [module for module in student.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]


@torch.no_grad()
def _follow(student: Student, features: Features, batch_size: int) -> None:
    """Replace the running statistics by the mean over all batches of the clips."""
    momentum = [norm.momentum for norm in _norms(student)]
    for norm in _norms(student):
        norm.reset_running_stats()
        norm.train().momentum = None
    for index in features.batches(batch_size):
        student.relative(*student.frontend.normalise(features.batch(index)))
    for norm, before in zip(_norms(student), momentum, strict=True):
        norm.momentum = before
