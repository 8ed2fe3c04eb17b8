"""Class shares: how often each emotion occurs where the device is, and the decision that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.errors import MifuseError

LEAST = 0.002  # of an emotion that is said to be absent; nobody is that sure, and logarithms need it
ROUNDING = 0.005  # how far a sum may be above 1


def complete(labels: Sequence[str], shares: Mapping[str, float]) -> NDArray[np.float64]:
    """Shares of all labels, (C,), that sum to 1 and are not 0: what `shares` leaves of 1 is spread evenly.

    Raises:
        MifuseError: an unknown emotion, no number from 0 to 1, or a sum that is not at most 1.

    >>> complete(("angry", "happy", "neutral", "sad"), {"neutral": 0.7}).round(3).tolist()
    [0.1, 0.1, 0.7, 0.1]
    """
    if not labels:
        raise MifuseError("this model says dimensions alone: leave out the shares of emotions")
    unknown = [name for name in shares if name not in labels]
    if unknown:
        raise MifuseError(f"shares name {unknown[0]!r}: the emotions are {', '.join(labels)}")
    for name, share in shares.items():
        if not (isinstance(share, (int, float)) and 0 <= share <= 1):
            raise MifuseError(f"the share of {name} is {share!r}: it must be a number from 0 to 1")
    total, rest = sum(shares.values()), len(labels) - len(shares)
    if total > 1 + ROUNDING or (rest == 0 and total < 1 - ROUNDING):
        bound = "at most 1" if rest else "1, since every emotion has one"
        raise MifuseError(f"the shares sum to {total:g}: they must sum to {bound}")
    spread = max(1 - total, 0.0) / max(rest, 1)
    return smoothed(np.array([shares.get(label, spread) for label in labels]))


def smoothed(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares without a zero or less, (C,), that sum to 1."""
    shares = np.maximum(shares, LEAST)
    return np.asarray(shares / shares.sum())


def odds(
    labels: Sequence[str], shares: Mapping[str, float], trained: Mapping[str, float] | None
) -> NDArray[np.float64]:
    """What each probability is multiplied by, (C,), before they sum to 1 again.

    Args:
        shares: emotion -> share, as of `complete`.
        trained: the shares that the model's answers assume; None: all alike.

    Raises:
        MifuseError: as for `complete`.

    >>> odds(("happy", "sad"), {"sad": 0.8}, None).round(2).tolist()
    [0.4, 1.6]
    """
    before = np.array([(trained or {}).get(label, 1 / len(labels)) for label in labels])
    return np.asarray(complete(labels, shares) / np.maximum(before, LEAST))
