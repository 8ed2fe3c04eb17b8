"""NRC: Yang, Wang, van de Weijer, Herranz, Jui, "Exploiting the Intrinsic Neighborhood Structure for
Source-free Domain Adaptation", NeurIPS 2021."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.baselines.method import (
    Indices,
    Method,
    Task,
    Terms,
    at_lower_rate,
    diversity,
    nearest,
    source_copy,
)


@dataclass(frozen=True)
class NrcConfig:
    """The paper's setting for few classes with many clips each (VisDA)."""

    neighbours: int = 5  # K, of the clip
    expanded: int = 5  # M, of each neighbour
    affinity: float = 0.1  # r, of neighbours that are not reciprocal and of expanded ones


class Nrc(Method):
    """Predictions are drawn to those of the neighbours, most of all to reciprocal ones (Eq. 2-7)."""

    def __init__(self, task: Task, settings: NrcConfig | None = None) -> None:
        super().__init__(task, source_copy(task), at_lower_rate(task))
        self.settings = settings or NrcConfig()
        self.bank, log_probs = self.survey()
        self.scores = log_probs.exp()

    def loss(self, index: Indices, logmel: Tensor) -> tuple[Terms, Tensor]:
        own = torch.from_numpy(index).to(self.device)
        embedding, logits = self.forward(self.plain(logmel))
        log_probs = F.log_softmax(logits, dim=1)
        with torch.no_grad():
            self.bank[own], self.scores[own] = embedding, log_probs.exp()
            wanted = self._wanted(own)
        agreement = (wanted * log_probs.exp()).sum(1).mean()
        # The diversity term is KL(mean || uniform) = ln C - entropy of the mean.
        loss = math.log(logits.shape[1]) - diversity(log_probs) - agreement
        return {"loss": loss, "agreement": agreement}, logits

    def _wanted(self, own: Tensor) -> Tensor:
        """Sum of the scores of clip, neighbours and expanded neighbours, weighed by affinity, (batch, C)."""
        settings = self.settings
        near = nearest(self.bank[own], self.bank, own, settings.neighbours)
        flat = near.flatten()
        further = nearest(self.bank[flat], self.bank, flat, settings.expanded).reshape(*near.shape, -1)
        weight = affinity(own, further, settings.affinity)
        neighbours = (weight[:, :, None] * self.scores[near]).sum(1)
        return self.scores[own] + neighbours + settings.affinity * self.scores[further].sum((1, 2))


def affinity(own: Tensor, further: Tensor, rest: float) -> Tensor:
    """1 for reciprocal neighbours and `rest` for others (Eq. 3): (batch,), (batch, K, M) -> (batch, K).

    A neighbour is reciprocal when the clip is among the M neighbours of its neighbour.
    """
    reciprocal = (further == own[:, None, None]).any(2)
    return torch.where(reciprocal, 1.0, rest)
