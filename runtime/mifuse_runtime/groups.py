"""Other answers from one bundle: some of its emotions alone, or several of them as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.errors import MifuseError
from mifuse_runtime.settings import NO_SPEECH, NOT_SURE

Matrix = NDArray[np.float64]


def subset(labels: Sequence[str], wanted: Sequence[str]) -> tuple[tuple[str, ...], Matrix]:
    """Labels, and the matrix (C, G) of zeros and ones that keeps theirs of C probabilities.

    Raises:
        MifuseError: fewer than two, one twice, or unknown ones.

    >>> subset(("angry", "happy", "sad"), ("sad", "angry"))[0]
    ('angry', 'sad')
    """
    _check_labels(labels)
    unknown = [name for name in wanted if name not in labels]
    if unknown:
        raise MifuseError(f"there is no emotion {str(unknown[0])!r} here: they are {', '.join(labels)}")
    kept = [i for i, label in enumerate(labels) if label in wanted]
    if len(kept) < 2 or len(set(wanted)) < len(wanted):
        raise MifuseError(
            f"a subset of {', '.join(wanted) or 'nothing'}: name two or more emotions, each once"
        )
    return tuple(labels[i] for i in kept), np.eye(len(labels))[:, kept]


def grouping(labels: Sequence[str], groups: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], Matrix]:
    """Names, and the matrix (C, G) that sums C probabilities to theirs; emotions of no group stay.

    Raises:
        MifuseError: unknown emotions, one in two groups, or a name that an emotion outside of it has.

    >>> grouping(("angry", "happy", "sad"), {"negative": ("angry", "sad")})[0]
    ('negative', 'happy')
    """
    _check_labels(labels)
    place: dict[str, str] = {}
    for name, members in groups.items():
        for member in members:
            if member not in labels:
                raise MifuseError(f"group {name}: no emotion {member!r} here: they are {', '.join(labels)}")
            if place.setdefault(member, name) != name:
                raise MifuseError(f"{member!r} is in the groups {place[member]} and {name}: keep it in one")
        if not name or not name.isprintable() or name in (NO_SPEECH, NOT_SURE) or not members:
            raise MifuseError(f"group {name!r} of {len(members)} emotions: give it a name and members")
    taken = [name for name in groups if name in labels and place.get(name) != name]
    if taken:
        raise MifuseError(f"group {taken[0]!r} has the name of an emotion outside of it: choose another")
    names = tuple(dict.fromkeys(place.get(label, label) for label in labels))
    if len(names) < 2:
        raise MifuseError(f"one group, {names[0]!r}, of all emotions: leave some out of it")
    matrix = np.zeros((len(labels), len(names)))
    for i, label in enumerate(labels):
        matrix[i, names.index(place.get(label, label))] = 1.0
    return names, matrix


def _check_labels(labels: Sequence[str]) -> None:
    if not labels:
        raise MifuseError("this model says dimensions alone: it has no emotions to choose from")


def parse_groups(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Groups as `negative=angry+sad`.

    Raises:
        MifuseError: another form, or a name twice.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, members = (part.strip() for part in text.partition("="))
        found = tuple(member.strip() for member in members.split("+") if member.strip())
        if not (name and equals and found) or name in groups:
            raise MifuseError(f"group {text!r}: write NAME=A+B, as in negative=angry+sad, each name once")
        groups[name] = found
    return groups
