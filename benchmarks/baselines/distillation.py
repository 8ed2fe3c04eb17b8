"""Students fitted to soft labels that stay as they are."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.baselines.method import THIRD, Array, Task, at_lower_rate
from mifuse.fusion.weighting import fuse
from mifuse.models.student import Student
from mifuse.models.training import Trainer, mc_dropout_draws


def distil(task: Task, targets: Array, share: float = 1.0) -> Student:
    """A student fitted to soft labels (N, C) that stay as they are; with true labels: the oracle.

    Args:
        share: of the learning rate, see `at_lower_rate`.
    """
    fit = Trainer(task.first_student(), task.features, at_lower_rate(task, share), task.seed)
    while fit.epoch < fit.epochs:
        fit.run_epoch(targets)
    return fit.average.cpu().eval()


def lalm_only(task: Task) -> Student:
    """Distillation of the LALM's mean draw alone ("LALM SFUDA" in Huang, Lin, Lee, arXiv 2509.20706)."""
    return distil(task, task.lalm_draws.mean(axis=0), THIRD)


def fusion(weighting: str) -> Callable[[Task], Student]:
    """Distillation of both teachers' mean draws, fused once with one of `mifuse.fusion.WEIGHTINGS`."""

    def run(task: Task) -> Student:
        config = task.config
        draws = mc_dropout_draws(task.classifier, task.features, config.classifier_draws, task.seed)
        fused = fuse(task.lalm_draws, draws, weighting, config.temperature)
        return distil(task, fused.probs, THIRD)

    return run
