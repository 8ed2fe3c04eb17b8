"""The emotions: their names, their order, and the other names by which corpora and models call them."""

from __future__ import annotations

from collections.abc import Sequence

from mifuse.errors import MifuseError

LABELS = ("angry", "happy", "neutral", "sad")
"""The default label set, in the order of every probability vector (alphabetical)."""

ALIASES = {
    "anger": "angry",
    "ang": "angry",
    "a": "angry",
    "happiness": "happy",
    "hap": "happy",
    "joy": "happy",
    "h": "happy",
    "excited": "happy",
    "excitement": "happy",
    "exc": "happy",
    "neu": "neutral",
    "n": "neutral",
    "sadness": "sad",
    "sa": "sad",
    "s": "sad",
}


def canonical(label: str, labels: Sequence[str] = LABELS) -> str | None:
    """Our name of an emotion, or None when it is none of `labels`.

    >>> canonical("Anger"), canonical("exc"), canonical("fear")
    ('angry', 'happy', None)
    """
    name = label.strip().lower()
    name = name if name in labels else ALIASES.get(name, name)
    return name if name in labels else None


def require_same_labels(expected: Sequence[str], found: Sequence[str], who: str) -> None:
    """Refuse two label sets that differ; order does not matter."""
    if set(expected) != set(found):
        raise MifuseError(
            f"{who} knows the labels {', '.join(sorted(found))}, expected {', '.join(sorted(expected))}: "
            "use the same label set for classifier, LALM and manifest"
        )
