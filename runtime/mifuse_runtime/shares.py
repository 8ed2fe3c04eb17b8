"""Class shares: how often each emotion occurs where the device is, and the decision that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.errors import MifuseError

LEAST = 0.002  # of an emotion that is said to be absent
ROUNDING = 0.005  # how far a sum may be above 1


def odds(
    labels: Sequence[str], shares: Mapping[str, float], trained: Mapping[str, float] | None
) -> NDArray[np.float64]:
    """What each probability is multiplied by, (C,), before they sum to 1 again.

    Args:
        shares: emotion -> share; what they leave of 1 is spread over the other emotions.
        trained: the shares that the model's answers assume; None: all alike.

    Raises:
        MifuseError: an unknown emotion, no number from 0 to 1, or a sum that is not at most 1.

    >>> odds(("happy", "sad"), {"sad": 0.8}, None).round(2).tolist()
    [0.4, 1.6]
    """
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
    wanted = np.maximum([shares.get(label, spread) for label in labels], LEAST)
    before = np.array([(trained or {}).get(label, 1 / len(labels)) for label in labels])
    return np.asarray(wanted / wanted.sum() / np.maximum(before, LEAST))
