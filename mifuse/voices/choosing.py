"""Recordings worth listening to: the few whose labels say most of all the others.

Clips that sound alike, each within its voice, share an emotion more often than not: one clip from the middle
of each group stands for it. No label, draw or student is needed. Source: clustering before asking, as in
Nguyen and Smeulders, "Active learning using pre-clustering" (ICML 2004).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip
from mifuse.errors import MifuseError
from mifuse.voices.clustering import k_means, voices_removed
from mifuse.voices.statistics import voice_statistics

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
MARGIN = 0.1  # nats
DRAWN = "drawn"  # column of a check set that says how it was drawn
FEWEST_CLIPS = 64  # of an archive; in fewer, names are borne out or not by chance


def choose(clips: Sequence[Clip], cache: AudioCache, count: int, seed: int = 0) -> Indices:
    """Which `count` clips to label, in their order; their labels are not read.

    Raises:
        MifuseError: there are fewer clips.
        AudioError: a clip cannot be read.
    """
    _check_count(count, len(clips))
    values = voice_statistics(clips, cache).in_memory()
    alike = voices_removed(values, [clip.speaker for clip in clips], None, seed)(np.zeros((len(clips), 1)))
    return typical(alike, count, seed)


def draw(clips: Sequence[Clip], cache: AudioCache, count: int, seed: int = 0) -> Indices:
    """`count` clips at random, in their order; the same ones whatever the order of the manifest is.

    Raises:
        MifuseError: there are fewer clips.
    """
    _check_count(count, len(clips))
    order = np.argsort([cache.hash(clip) for clip in clips], kind="stable")
    return np.sort(order[np.random.default_rng(seed).permutation(len(clips))[:count]])


def _check_count(count: int, clips: int) -> None:
    if not 1 <= count <= clips:
        raise MifuseError(f"{count} of {clips} clips cannot be chosen: choose 1 to {clips}")


def doubted(labels: Array, lalm: Array) -> list[int]:
    """Emotions whose clips the LALM does not call by that name clearly more often than by another.

    Where it takes one emotion for another throughout, every clip bears that out, and a student learns the
    wrong name. What is compared is how much more often it says an emotion of the clips with that label than
    of all clips, in nats. On the corpora of benchmarks.transfers that was 0.15 or more above every other
    emotion in two, and -0.08 to 0.02 in koremo, whose sad clips the LALM calls angry as often (docs/log).

    Args:
        labels: what the student is taught, (N, C).
        lalm: mean draws, (N, C).
    """
    if len(labels) < FEWEST_CLIPS:
        return []
    said = (labels / labels.sum(axis=0)).T @ lalm  # of the clips with this label, that emotion
    lift = np.log(np.maximum(said, 1e-9) / np.maximum(lalm.mean(axis=0), 1e-9))
    others = np.where(np.eye(len(lift)), -np.inf, lift).max(axis=1)
    return [int(c) for c in np.flatnonzero(np.diag(lift) - others < MARGIN)]


def typical(values: Array, count: int, seed: int = 0) -> Indices:
    """The row nearest to the middle of each of `count` groups of rows (N, D); fewer where rows are alike."""
    groups = k_means(values, np.zeros((len(values), 1)), count, np.random.default_rng(seed))
    chosen = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        distance = ((values[rows] - values[rows].mean(axis=0)) ** 2).sum(axis=1)
        chosen.append(rows[distance.argmin()])
    return np.sort(chosen)
