"""Other ways to use the same clips, draws and classifier: same student, same budget, same selection.

Every baseline is a student fitted for `config.fit.steps` with `config.fit`'s sampling and augmentation,
and the moving average after the last step is what counts: none of them sees a label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mifuse.adapt import AdaptConfig, first_student
from mifuse.features import Features
from mifuse.fusion import fuse
from mifuse.student import Student
from mifuse.training import Fit, mc_dropout_draws

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """What every baseline is given."""

    features: Features  # of N target clips
    lalm_draws: Array  # (K, N, C)
    classifier: Student  # the source model; it is not changed
    config: AdaptConfig  # of the student and its training
    seed: int = 0


def distil(task: Task, targets: Array) -> Student:
    """A student fitted to soft labels (N, C) that stay as they are; with true labels: the oracle."""
    fit = Fit(
        first_student(task.classifier, task.config, task.seed), task.features, task.config.fit, task.seed
    )
    while fit.epoch < fit.epochs:
        fit.run_epoch(targets)
    return fit.average.cpu().eval()


def lalm_only(task: Task) -> Student:
    """Distillation of the LALM's mean draw alone ("LALM SFUDA" in Huang, Lin, Lee, arXiv 2509.20706)."""
    return distil(task, task.lalm_draws.mean(axis=0))


def _fusion(weighting: str) -> Callable[[Task], Student]:
    def run(task: Task) -> Student:
        config = task.config
        draws = mc_dropout_draws(task.classifier, task.features, config.classifier_draws, task.seed)
        return distil(task, fuse(task.lalm_draws, draws, weighting, config.temperature).probs)

    return run


BASELINES: dict[str, Callable[[Task], Student]] = {
    "lalm-only": lalm_only,
    "uniform": _fusion("uniform"),  # mean of both teachers
    "entropy": _fusion("entropy"),  # teachers weighed by exp(-entropy of the mean draw)
}
"""Name -> what makes its student."""
