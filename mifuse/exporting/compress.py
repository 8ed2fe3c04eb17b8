"""A narrower student for a budget that the student does not hold: its strongest channels, taught by it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray
from torch import Tensor

from mifuse.errors import MifuseError
from mifuse.models.features import Features
from mifuse.models.student import Student, size_of, width_of
from mifuse.models.training import Array, FitConfig, Trainer, frozen_copy, predict

if TYPE_CHECKING:
    import numpy as np

    from mifuse_export.settings import Budget, Cost

_LOGGER = logging.getLogger(__name__)

DISTIL = FitConfig(steps=600)


def within(
    budget: Budget,
    student: Student,
    features: Callable[[], Features],
    cost: Callable[[Student], Cost],
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Iterator[Student]:
    """Students that should hold the budget, widest first: the student itself if it does, then narrower ones.

    Each is made when it is asked for: as long as the one before turns out to be over budget.

    Args:
        features: of the unlabelled clips on which the student teaches narrower ones.
        cost: estimate for a student, which need not be trained.
        progress: called with the record of each epoch.

    Raises:
        MifuseError: not even the narrowest student should hold it.
    """
    own = cost(student)
    _LOGGER.info("student of size %s: %s estimated, the budget is %s", student.size, own, budget)
    if budget.holds(own):
        yield student
    below = width_of(student.size)
    least = own if below == 1 else cost(narrowed(student, 1))
    if not budget.holds(least):
        raise MifuseError(
            f"no student holds the budget of {budget}: the narrowest costs {least} here; allow it that much"
        )
    fits = 1
    while below - fits > 1:  # the wider, the dearer
        middle = (fits + below) // 2
        if budget.holds(cost(narrowed(student, middle))):
            fits = middle
        else:
            below = middle
    for width in range(min(fits, below - 1), 0, -1):
        _LOGGER.info("teaching a student of size %s", size_of(width))
        yield distilled(student, narrowed(student, width), features(), progress=progress)


def narrowed(student: Student, width: int) -> Student:
    """The student's strongest channels as a student of that width, which is at most its own; not fitted yet.

    A channel is as strong as its filter is long once the batch norm has scaled it: |γ| / σ times the norm of
    its weights. Source: Li et al., "Pruning Filters for Efficient ConvNets" (ICLR 2017), with the batch norm.
    """
    prosody = student.prosody is not None
    narrow = Student(student.labels, size_of(width), student.dropout.p, student.dimensions, prosody)
    narrow.train(student.training)
    weights, shapes = student.state_dict(), narrow.state_dict()
    kept = torch.zeros(1, dtype=torch.int64)  # the log-mel itself
    for block in range(len(student.blocks)):
        conv, norm = f"blocks.{block}.conv.weight", f"blocks.{block}.norm"
        filters, channels = weights[conv], len(weights[conv])
        scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + 1e-5)
        strongest = (scale.abs() * filters.flatten(1).norm(dim=1)).topk(len(shapes[conv])).indices
        inputs, kept = kept, strongest.sort().values
        weights[conv] = filters[kept][:, inputs]
        for name in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{name}"] = weights[f"{norm}.{name}"][kept]
    # The head reads the mean of every channel and mel bin, then the deviations, then the spectrum.
    size, spectrum = weights["head.weight"].shape[1], student.norm.spectrum
    places = torch.arange(size - spectrum).view(2, channels, -1)[:, kept].flatten()
    places = torch.cat([places, torch.arange(size - spectrum, size)])
    for name in ("head.weight", "norm.running_mean", "norm.running_var"):
        weights[name] = weights[name][..., places]
    narrow.load_state_dict(weights)
    return narrow


def distilled(
    student: Student,
    start: Student,
    features: Features,
    *,
    config: FitConfig | None = None,
    seed: int = 0,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Student:
    """`start` fitted to what the student says of the clips, view by view; no labels are read.

    Both get the same augmented clip: the student's answers to the clips as they are would make noise of the
    augmentations. Source: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent"
    (CVPR 2022).

    Raises:
        TrainingError: the loss is not finite, or all predictions fall on one class.
    """
    labels: Array = predict(student, features)  # they balance the sampling
    fit = Trainer(copy.deepcopy(start), features, config or DISTIL, seed)
    fit.student.dropout.p = 0.0  # it learns a function, which noise would only blur
    teacher = frozen_copy(student).to(fit.accelerator.device)

    def loss(index: NDArray[np.int64], logmel: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        view = fit.view(index, logmel)
        with fit.accelerator.autocast():
            scores = fit.model(*view).float()
        return {"loss": fit.imitation(teacher, view, scores)}, scores[:, : len(student.labels)]

    while fit.epoch < fit.epochs:
        progress(fit.run_epoch(labels, loss))
    return fit.average.cpu().eval()
