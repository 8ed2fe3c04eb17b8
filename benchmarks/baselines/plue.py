"""PLUE: Litrico, Del Bue, Morerio, "Guiding Pseudo-labels with Uncertainty Estimation for Source-free
Unsupervised Domain Adaptation", CVPR 2023."""

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
from mifuse.models.training import View


@dataclass(frozen=True)
class PlueConfig:
    """The paper's setting."""

    neighbours: int = 10  # whose predictions are averaged
    history: int = 5  # T, epochs of pseudo-labels that show which pairs are negative
    temperature: float = 0.07  # of the contrastive term


class Plue(Method):
    """Negative learning on pseudo-labels that neighbours refine, weighed by how sure the neighbours are.

    A weak view (not augmented) gives the pseudo-label, a strong one learns from it, and a second strong view
    through the moving average of the weights is its positive pair; pairs that shared a pseudo-label lately
    are no negatives.
    """

    def __init__(self, task: Task, settings: PlueConfig | None = None) -> None:
        super().__init__(task, source_copy(task), at_lower_rate(task))
        self.settings = settings or PlueConfig()
        self.bank, log_probs = self.survey()
        self.scores = log_probs.exp()
        self.keys = self.bank.clone()
        clips = torch.arange(len(self.bank), device=self.device)
        labels = self._neighbours(self.bank, clips).argmax(1)
        self.history = labels[:, None].repeat(1, self.settings.history)

    def loss(self, index: Indices, logmel: Tensor) -> tuple[Terms, Tensor]:
        own = torch.from_numpy(index).to(self.device)
        weak_embedding, weak_logits = self.forward(self.plain(logmel))
        with torch.no_grad():
            mean = self._neighbours(weak_embedding, own)
            labels, weight = mean.argmax(1), certainty(mean)
            self.history[own, self.fit.epoch % self.settings.history] = labels
        embedding, logits = self.forward(self.fit.view(index, logmel))
        log_probs, weak = F.log_softmax(logits, dim=1), F.log_softmax(weak_logits, dim=1)
        negative = (weight * negative_loss(log_probs, labels)).mean()
        contrast = self._contrast(embedding, own, self.fit.view(index, logmel))
        with torch.no_grad():
            self.bank[own], self.scores[own] = weak_embedding, weak.exp()
        loss = negative + contrast - diversity(log_probs) - diversity(weak)
        return {"loss": loss, "negative": negative, "contrast": contrast}, logits

    def _neighbours(self, embedding: Tensor, own: Tensor) -> Tensor:
        """Mean prediction of each clip's neighbours, (batch, C)."""
        return self.scores[nearest(embedding, self.bank, own, self.settings.neighbours)].mean(1)

    def _contrast(self, embedding: Tensor, own: Tensor, view: View) -> Tensor:
        with torch.no_grad(), self.fit.accelerator.autocast():
            positive = F.normalize(self.fit.average.relative(*view).float(), dim=1)
        similarity = embedding @ self.keys.T
        shared = (self.history[own][:, None] == self.history[None]).any(2)
        similarity = similarity.masked_fill(shared, -torch.inf)
        similarity = torch.cat([(embedding * positive).sum(1, keepdim=True), similarity], dim=1)
        self.keys = self.keys.index_copy(0, own, positive)  # a copy: the gradient still needs the old ones
        first = torch.zeros(len(own), dtype=torch.int64, device=self.device)
        return F.cross_entropy(similarity / self.settings.temperature, first)


def certainty(mean: Tensor) -> Tensor:
    """Weight of a pseudo-label, exp(-H / ln C) of the neighbours' mean prediction: (batch, C) -> (batch,)."""
    surprise = -(mean * mean.clamp(min=1e-9).log()).sum(1)
    return torch.exp(-surprise / math.log(mean.shape[1]))


def negative_loss(log_probs: Tensor, labels: Tensor) -> Tensor:
    """-ln(1 - p of a random class that is not the label): (batch, C), (batch,) -> (batch,)."""
    classes = log_probs.shape[1]
    other = (labels + torch.randint(1, classes, labels.shape, device=labels.device)) % classes
    chosen = log_probs.gather(1, other[:, None])[:, 0].exp()
    return -torch.log((1 - chosen).clamp(min=1e-5))
