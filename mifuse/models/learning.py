"""What a classifier learns from: which clips, under which labels, and whose are held out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.dimensions import has_dimensions
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import Clip
from mifuse.errors import TrainingError
from mifuse_runtime.dimensions import Ranges

_LOGGER = logging.getLogger(__name__)


def to_learn(clips: Sequence[Clip], labels: Sequence[str] | None, ranges: Ranges) -> list[Clip]:
    """The labelled clips; those that have a number, without labels, where dimensions alone are learnt.

    Args:
        labels: those that are wanted; empty: none. None: those of the clips, if there are any.

    Raises:
        TrainingError: no labels are wanted, or there, and no clip has a number.
    """
    labelled = [clip for clip in clips if clip.label is not None]
    alone = bool(ranges) and not labelled if labels is None else not labels
    if not alone:
        return labelled
    numbered = [replace(clip, label=None) for clip in clips if has_dimensions([clip], ranges)]
    if not numbered:
        what = f"a number of {', '.join(ranges)}" if ranges else "what --targets would name"
        raise TrainingError(f"no clip to train on has a label, or {what}: nothing is there to be learnt")
    return numbered


def label_set(clips: Sequence[Clip], labels: Sequence[str] | None) -> Sequence[str]:
    """The labels of a classifier that learns from what `to_learn` found: those wanted, or those that occur.

    Empty where the clips have numbers alone.

    Raises:
        TrainingError: the clips do not go with them, or have one class alone.
    """
    if clips and clips[0].label is None:
        return ()
    found = Counter(str(clip.label) for clip in clips)
    if len(found) < 2:
        which = f", and all are {next(iter(found))!r}" if found else ""
        raise TrainingError(
            f"{len(clips)} labelled clips of {len(found)} classes: a classifier needs at least two{which}"
        )
    labels = labels or Naming().set_of(found, "the labelled clips")
    if strange := [label for label in found if label not in labels]:
        raise TrainingError(
            f"{found[strange[0]]} clips are labelled {strange[0]!r}: the labels are {', '.join(labels)}"
        )
    if absent := [label for label in labels if label not in found]:
        _LOGGER.warning("no clip is labelled %s: the classifier cannot learn that", ", ".join(absent))
    return labels


def classes_of(clips: Sequence[Clip], labels: Sequence[str]) -> NDArray[np.int64]:
    """Class of each clip, (N,); 0 where there are no labels."""
    return np.array([labels.index(str(clip.label)) if labels else 0 for clip in clips])


def names(clips: Sequence[Clip]) -> list[str]:
    """Whose each clip is; one without a speaker is of a speaker of its own."""
    return [clip.speaker or clip.name for clip in clips]


def held_out(clips: Sequence[Clip], share: float, seed: int) -> list[bool]:
    """Which clips belong to the held-out speakers."""
    whose = names(clips)
    speakers = sorted(set(whose))
    if len(speakers) < 2:
        raise TrainingError(
            f"all clips are of one speaker ({speakers[0]}): early stopping needs a second one to listen to"
        )
    count = min(max(1, round(share * len(speakers))), len(speakers) - 1)
    held = set(np.random.default_rng(seed).choice(speakers, count, replace=False).tolist())
    return [name in held for name in whose]
