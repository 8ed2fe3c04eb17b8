"""Who speaks, where nobody says so: clips grouped by their voices' embeddings.

Ward's clustering makes a tree of the clips. From its root down, a group is split in two as long as the halves
lie apart and are not moods: where both teachers see other emotions in one half than in the other, beyond what
they see within the halves, the split runs along emotions, and the group stays whole.

Source: Ward, "Hierarchical grouping to optimize an objective function" (J. American Statistical Assoc. 1963).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.models.speaker_norm import FEWEST
from mifuse.voices.effects import share_between

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Share of the teachers' covariance that lies between the halves, from which on they are moods, of four
# emotions: splits between speakers of the corpora measured -0.4 to 0.3, those within a speaker 0.3 to 1. Two
# halves show one of the C - 1 differences between C emotions: the more emotions, the smaller its share.
MOODS = 0.35
APART = 3.0  # deviations between the halves, along the line between them; halves of one normal cloud are 2.65
MOST = 4000  # clips of a tree, which needs the distances of all pairs; others join the nearest group


def voices(embeddings: Array, views: tuple[Array, Array], seed: int = 0) -> Indices:
    """Voice of each clip as a number, (N,).

    Args:
        embeddings: of unit length, (N, D).
        views: soft labels (N, C) of the LALM, and of the classifier without speaker normalisation.
    """
    if len(embeddings) > MOST:
        drawn = np.sort(np.random.default_rng(seed).choice(len(embeddings), MOST, replace=False))
        groups = voices(embeddings[drawn], (views[0][drawn], views[1][drawn]))
        member = np.eye(groups.max() + 1)[groups]
        centres = member.T @ embeddings[drawn] / member.sum(axis=0)[:, None]
        return np.asarray((embeddings @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1))
    if len(embeddings) < 2 * FEWEST:
        return np.zeros(len(embeddings), dtype=np.int64)
    from scipy.cluster.hierarchy import linkage, to_tree

    moods = min(0.5, 3 * MOODS / max(views[0].shape[1] - 1, 1))
    groups, waiting = np.zeros(len(embeddings), dtype=np.int64), [to_tree(linkage(embeddings, "ward"))]
    count = 0
    while waiting:
        node = waiting.pop()
        rows = np.array(node.pre_order())
        halves = [] if node.is_leaf() else [node.get_left(), node.get_right()]
        sizes = [half.get_count() for half in halves]
        if halves and min(sizes) >= FEWEST:
            side = np.repeat([0, 1], sizes)
            seen = share_between((views[0][rows], views[1][rows]), side)
            if seen < moods and _distance(embeddings[rows], side) >= APART:
                waiting += halves
                continue
        groups[rows] = count
        count += 1
    return groups


def _distance(values: Array, side: Indices) -> float:
    """Between the means of two halves, in deviations within them: (N, D), (N,) of 0 and 1."""
    line = values[side == 1].mean(axis=0) - values[side == 0].mean(axis=0)
    along = values @ line
    means = np.array([along[side == half].mean() for half in (0, 1)])
    return float((means[1] - means[0]) / max(float((along - means[side]).std()), 1e-12))


def named(speakers: Sequence[str | None], rows: Indices, groups: Indices) -> list[str | None]:
    """The speakers with a name for each group of the clips `rows`, "voice 1" and so on, as they come."""
    names = list(speakers)
    for row, number in zip(rows.tolist(), numbered(groups.tolist()), strict=True):
        names[row] = f"voice {number}"
    return names


def numbered(groups: Sequence[int]) -> list[int]:
    """Number of each clip's group, from 1 in the order that the groups come.

    >>> numbered([7, 2, 7])
    [1, 2, 1]
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups), 1)}
    return [numbers[group] for group in groups]
