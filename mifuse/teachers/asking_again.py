"""Draws for the money: which clips to ask about again, because another answer may change their label.

Every clip is asked about once. How far the answers about one clip differ is estimated from the clips with
several, and says how likely the next request is to change the label of the mean draw. Labels that are sure
after one request cost no second one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST = 8  # draws of a clip
PILOT = 48  # clips asked about twice, where one request is one draw: without them no spread is known
CHANCE = 0.05  # of a change, from which a clip is asked about again
ENOUGH = 0.005  # labels expected to change, of all, below which nothing more is asked
OWN = 2.0  # draws that the spread of all clips counts for beside a clip's own


def worth_asking(draws: Sequence[Array], more: int) -> NDArray[np.bool_]:
    """Clips whose label another request may change, (N,); none where hardly any would change.

    Args:
        draws: of each clip, (k, C), at least one; k differs.
        more: draws that the next request brings.

    >>> worth_asking([np.array([[0.9, 0.1]] * 2), np.array([[0.9, 0.1], [0.2, 0.8]])], more=1).tolist()
    [False, True]
    """
    counts = np.array([len(clip) for clip in draws])
    leads = [_lead(clip) for clip in draws]
    squares = np.array([((lead - lead.mean()) ** 2).sum() for lead in leads])
    free = counts - 1
    if not free.any():
        return np.arange(len(draws)) < PILOT
    spread = (OWN * squares.sum() / free.sum() + squares) / (OWN + free)  # variance of one draw's lead
    lead = np.array([one.mean() for one in leads])
    # The label changes where the next draws' mean is below -lead * counts / more; they are as uncertain about
    # the clip's own mean as its draws so far are few.
    z = lead * (1 + counts / more) / np.sqrt(spread * (1 / more + 1 / counts) + 1e-12)
    chance = np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in z])
    worth = (chance > CHANCE) & (counts + more <= MOST)
    return worth if chance[worth].sum() > ENOUGH * len(draws) else np.zeros(len(draws), dtype=bool)


def _lead(draws: Array) -> Array:
    """Of each draw (k, C): how far the mean's first class is ahead of its second, (k,)."""
    second, first = draws.mean(axis=0).argsort()[-2:]
    return np.asarray(draws[:, first] - draws[:, second])
