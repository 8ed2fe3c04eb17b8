"""DINE: Liang, Hu, Feng, He, "DINE: Domain Adaptation from Single and Multiple Black-box Predictors",
CVPR 2022."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.baselines.method import Indices, Method, Task, Terms, cross_entropy, diversity, entropy


@dataclass(frozen=True)
class DineConfig:
    """The paper's setting."""

    kept: int = 1  # r, classes whose probability is kept by the adaptive label smoothing
    memory: float = 0.6  # γ of the moving average of predictions, per update; 1 keeps the LALM's
    updates: int = 10  # of this memory while distilling
    mixup: float = 0.3  # α of Beta(α, α)
    tuning: float = 0.5  # share of the steps for fine-tuning by mutual information alone; 0 is off


class Dine(Method):
    """Distil a black box, here the LALM's mean draw, then fine-tune by mutual information.

    Distillation minimises KL against a memory of smoothed LALM answers and past predictions, minus the mutual
    information of clips and predictions, plus the inconsistency of mixed clips. The student starts as that of
    LALM-only distillation does, where the paper's starts from ImageNet.
    """

    def __init__(self, task: Task, settings: DineConfig | None = None) -> None:
        super().__init__(task, task.first_student())
        self.settings = settings or DineConfig()
        lalm = torch.from_numpy(task.lalm_draws.mean(axis=0)).float().to(self.device)
        self.memory = smooth(lalm, self.settings.kept)
        self.distilling = round(self.fit.config.steps * (1 - self.settings.tuning))  # steps

    def start_epoch(self) -> None:
        epochs = -(-self.distilling // self.fit.config.steps_per_epoch)
        every = max(1, epochs // self.settings.updates)
        if 0 < self.fit.epoch < epochs and self.fit.epoch % every == 0:
            _, log_probs = self.survey()
            kept = self.settings.memory
            self.memory = kept * self.memory + (1 - kept) * log_probs.exp()

    def loss(self, index: Indices, logmel: Tensor) -> tuple[Terms, Tensor]:
        x, speech, spectrum, clips_per_speaker = self.plain(logmel)
        _, logits = self.forward((x, speech, spectrum, clips_per_speaker))
        log_probs = F.log_softmax(logits, dim=1)
        information = diversity(log_probs) - entropy(log_probs)
        if self.fit.step >= self.distilling:
            return {"loss": -information}, logits
        distance = divergence(self.memory[index], log_probs)
        alpha = self.settings.mixup
        share = np.random.default_rng([self.task.seed, self.fit.step]).beta(alpha, alpha)
        # Within the speaker, so that a mixed clip has one.
        other = torch.randperm(len(index), device=self.device)
        if clips_per_speaker:
            rows = torch.arange(len(index), device=self.device).reshape(-1, clips_per_speaker)
            other = rows[:, torch.randperm(clips_per_speaker, device=self.device)].flatten()

        def mixed(values: Tensor) -> Tensor:
            return share * values + (1 - share) * values[other]

        _, mixed_logits = self.forward((mixed(x), mixed(speech), mixed(spectrum), clips_per_speaker))
        mixup = divergence(mixed(log_probs.exp().detach()), F.log_softmax(mixed_logits, dim=1))
        return {"loss": distance - information + mixup, "distance": distance, "mixup": mixup}, logits


def smooth(probs: Tensor, kept: int) -> Tensor:
    """Adaptive label smoothing: keep the `kept` largest of each row and share the rest equally, (N, C).

    >>> smooth(torch.tensor([[0.6, 0.3, 0.1]]), 1)
    tensor([[0.6000, 0.2000, 0.2000]])
    """
    classes = probs.shape[1]
    if kept >= classes:
        return probs
    top, where = probs.topk(kept, dim=1)
    rest = (1 - top.sum(1, keepdim=True)) / (classes - kept)
    return rest.expand(-1, classes).scatter(1, where, top)


def divergence(targets: Tensor, log_probs: Tensor) -> Tensor:
    """Mean KL(targets || predictions), nats: (batch, C), (batch, C) -> scalar."""
    return cross_entropy(targets, log_probs) - entropy(targets.clamp(min=1e-9).log())
