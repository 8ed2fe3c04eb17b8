"""The student's second head: a linear model of pitch and voice quality, fitted to the last labels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mifuse.fusion.refinement import linear_model
from mifuse.models.features import Features
from mifuse.models.student import Student

Array = NDArray[np.float64]
# Weight decay. With .1 koremo and nEMO gain 5.6 points on new speakers and RAVDESS loses 3.5; with 1 they
# gain 4.1 and 2.4, and it loses .2 (docs/log/2026-11-30-prosody-head.md).
L2 = 1.0


def fit_prosody(
    student: Student, features: Features, labels: Array, balance: float, rows: NDArray[np.int64] | None = None
) -> None:
    """Fit the prosody head of `student` to soft labels (N, C), if it has one.

    Each clip counts twice where speakers are known: held against the archive, as that of a stranger, and
    within its speaker.

    Args:
        balance: 1: classes count alike, 0: clips do; as of `FitConfig`.
        rows: of the clips to learn from; None: all.
    """
    head = student.prosody
    if head is None:
        return
    values, speakers = features.prosody(), features.speakers
    if rows is not None:
        values, speakers, labels = values[rows], speakers[rows], labels[rows]
    head.normalise(values)
    weighted = labels / np.maximum(labels.mean(axis=0), 1e-3) ** balance
    inputs = [head.within(values, np.full(len(values), -1))]
    if (known := speakers >= 0).any():
        inputs.append(head.within(values, speakers)[known])
    z = torch.cat(inputs).double().numpy()
    found = linear_model(z, np.concatenate([weighted, weighted[known]])[: len(z)], L2)
    head.weight, head.bias = (torch.from_numpy(part).float() for part in (found[:-1].T.copy(), found[-1]))
