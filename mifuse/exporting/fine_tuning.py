"""Quantisation-aware fine-tuning: a student learns to give in int8 the answers that it gives in float."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mifuse.models.augment import AugmentConfig
from mifuse.models.dimensions import DimensionTargets
from mifuse.models.features import Features
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer, predict_all

if TYPE_CHECKING:
    from mifuse_export.qat import Rounding

# Short, slow and of clips as they are: the gate holds int8 against the float student. For the same reason its
# own answers are the labels: fused ones change every sixth answer (docs/log), mostly for the better.
PLAIN = AugmentConfig(stretch=0, warp=0, noise=0, time_masks=0, mel_masks=0)
CONFIG = FitConfig(steps=150, lr=3e-4, label_smoothing=0.0, balance=0.0, momentum=0.98, augment=PLAIN)


def fine_tuned(
    student: Student,
    features: Features,
    places: Mapping[str, Rounding],
    config: FitConfig,
) -> Student:
    """A copy of the student that was fitted with int8's rounding in the layers that `places` names.

    Its norms are folded into the convolutions, as in the exported graph, and nothing is dropped out.

    Raises:
        TrainingError: the loss is not finite, or the student collapsed.
    """
    from mifuse_export.qat import insert, remove

    labels, values = np.split(predict_all(student, features), [len(student.labels)], axis=1)
    tuned = folded(student)
    insert(tuned, places)
    tuned.dropout.p = 0.0
    taught = DimensionTargets(values) if student.dimensions else None
    fit = Trainer(tuned, features, config, dimensions=taught)
    while fit.epoch < fit.epochs:
        fit.run_epoch(labels)
    remove(fit.average)
    return fit.average.cpu()


def folded(student: Student) -> Student:
    """A copy with every norm folded into the convolution before it."""
    copied = copy.deepcopy(student).eval()
    block: Any  # the container says Module
    for block in copied.blocks:
        block.conv, block.norm = fuse_conv_bn_eval(block.conv, block.norm), nn.Identity()
    return copied
