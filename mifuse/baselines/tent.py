"""TENT: Wang, Shelhamer, Liu, Olshausen, Darrell, "Tent: Fully Test-time Adaptation by Entropy Minimization",
ICLR 2021."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from mifuse.baselines.method import Indices, Method, Task, Terms, entropy, source_copy


@dataclass(frozen=True)
class TentConfig:
    """The paper's setting."""

    lr: float = 1e-3  # peak


class Tent(Method):
    """Minimise the entropy of predictions by scales and shifts of the batch norms, with batch statistics.

    The paper's setting is one pass while predicting; here it is offline, with the budget of the others.
    Inference then uses running statistics, which have followed the target's batches.
    """

    def __init__(self, task: Task, settings: TentConfig | None = None) -> None:
        student = source_copy(task).requires_grad_(False)
        for module in student.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.requires_grad_(True)
        fit = task.config.fit
        lr = (settings or TentConfig()).lr
        super().__init__(task, student, replace(fit, lr=lr, weight_decay=0.0))

    def loss(self, index: Indices, logmel: Tensor) -> tuple[Terms, Tensor]:
        for module in self.fit.student.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        _, logits = self.forward(self.plain(logmel))
        return {"loss": entropy(F.log_softmax(logits, dim=1))}, logits
