"""SHOT: Liang, Hu, Feng, "Do We Really Need to Access the Source Data?", ICML 2020."""

from __future__ import annotations

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
    entropy,
    source_copy,
)


@dataclass(frozen=True)
class ShotConfig:
    """The paper's setting."""

    pseudo: float = 0.3  # β, weight of the pseudo-labels; 0 is off: SHOT-IM


class Shot(Method):
    """Information maximisation and centroid pseudo-labels; the head stays the classifier's (Eq. 3-7)."""

    def __init__(self, task: Task, settings: ShotConfig | None = None) -> None:
        student = source_copy(task)
        student.head.requires_grad_(False)
        super().__init__(task, student, at_lower_rate(task))
        self.settings = settings or ShotConfig()
        self.labels = torch.empty(0, dtype=torch.int64)

    def start_epoch(self) -> None:
        embeddings, log_probs = self.survey()
        self.labels = centroid_labels(embeddings, log_probs.exp())

    def loss(self, index: Indices, logmel: Tensor) -> tuple[Terms, Tensor]:
        _, logits = self.forward(self.plain(logmel))
        log_probs = F.log_softmax(logits, dim=1)
        pseudo = F.cross_entropy(logits, self.labels[index])
        loss = entropy(log_probs) - diversity(log_probs) + self.settings.pseudo * pseudo
        return {"loss": loss, "pseudo": pseudo}, logits


def centroid_labels(embeddings: Tensor, probs: Tensor) -> Tensor:
    """Class of the nearest centroid by cosine, (N,): centroids of the predictions (Eq. 4), labels (Eq. 5),
    then once more with centroids of these labels (Eq. 6).

    Args:
        embeddings: (N, D) of unit length.
        probs: (N, C).
    """
    weights = probs
    labels = probs.argmax(1)
    for _ in range(2):
        sums = weights.T @ embeddings
        # A class without a clip has no centroid, so it is no clip's nearest.
        empty = weights.sum(0) < 1e-6
        similarity = (embeddings @ F.normalize(sums, dim=1).T).masked_fill(empty, -torch.inf)
        labels = similarity.argmax(1)
        weights = F.one_hot(labels, probs.shape[1]).to(probs)
    return labels
