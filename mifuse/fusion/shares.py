"""Class shares: how often each emotion occurs in an archive, as the user or a check set says. NumPy only.

Source: prediction-powered inference, Angelopoulos et al. (Science 2023): what the estimated labels say of all
clips, corrected by what they get wrong on the few clips whose emotion is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.errors import MifuseError
from mifuse_runtime.shares import complete, smoothed

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

CONTRADICTION = 0.001  # probability below which shares and a check set do not fit


def parse_shares(text: str, labels: Sequence[str]) -> Array:
    """`neutral=.7,angry=.1`, the rest spread evenly over the other labels -> (C,), sums to 1.

    Raises:
        MifuseError: an unknown or repeated emotion, no number, or a sum that is not at most 1.

    >>> parse_shares("neutral=.7,angry=.1", ("angry", "happy", "neutral", "sad")).round(3).tolist()
    [0.1, 0.1, 0.7, 0.1]
    """
    given: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise MifuseError(f"shares {part.strip()!r}: write EMOTION=SHARE, as in {labels[0]}=0.7")
        if name in given:
            raise MifuseError(f"shares name {name} twice: leave out one of the two")
        try:
            given[name] = float(value)
        except ValueError:
            raise MifuseError(f"the share of {name} is {value!r}: it must be a number from 0 to 1") from None
    return complete(labels, given)


def estimated_shares(labels: Array, known: Indices) -> tuple[Array, Array]:
    """Class shares by a random check set, and their standard errors, (C,) each.

    Args:
        labels: soft labels of all clips, (N, C).
        known: class of each clip of the check set, -1 of all others, (N,).
    """
    checked = np.flatnonzero(known >= 0)
    truth = np.eye(labels.shape[1])[known[checked]]
    wrong = truth - labels[checked]
    estimate = labels.mean(axis=0) + wrong.mean(axis=0)
    # The spread of the corrections is no smaller than a clip's own: few clips may agree by chance.
    spread = np.maximum(wrong.std(axis=0), 0.5 / math.sqrt(len(checked)))
    error = np.sqrt(labels.var(axis=0) / len(labels) + spread**2 / len(checked))
    return smoothed(estimate), np.asarray(error)


def check_agrees(shares: Array, known: Indices, labels: Sequence[str]) -> None:
    """Refuse shares that a random check set contradicts.

    Raises:
        MifuseError: names the emotion that is furthest off, and by how much.
    """
    counts = np.bincount(known[known >= 0], minlength=len(shares))
    total = int(counts.sum())
    rng = np.random.default_rng(0)
    statistic = ((counts - total * shares) ** 2 / (total * shares)).sum()
    simulated = rng.multinomial(total, shares, size=20_000)
    chance = ((((simulated - total * shares) ** 2) / (total * shares)).sum(axis=1) >= statistic).mean()
    if total and chance < CONTRADICTION:
        worst = int(np.abs(counts / total - shares).argmax())
        raise MifuseError(
            f"--shares says {shares[worst]:.0%} {labels[worst]}, the check set {counts[worst]} of {total} "
            f"({counts[worst] / total:.0%}): put one of the two right, or leave --shares out"
        )
