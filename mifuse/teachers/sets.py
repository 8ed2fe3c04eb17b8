"""Draws over one set of labels from draws over another: what is absent is 0, what is too much is left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np

from mifuse.clips.labels import Naming
from mifuse.errors import DrawsError, MifuseError

_LOGGER = logging.getLogger(__name__)


class Onto:
    """Maps draws onto the labels of a naming, and knows what became of the others.

    >>> onto = Onto(Naming(("happy", "sad")), "draws.jsonl")
    >>> np.frombuffer(onto.packed({"Joy": 0.5, "sadness": 0.25, "fear": 0.25})).round(3).tolist()
    [0.667, 0.333]
    """

    def __init__(self, naming: Naming, where: str) -> None:
        self._naming, self._where = naming, where
        self._labels = naming.labels or ()
        self._places: dict[tuple[str, ...], list[int]] = {}  # words of a draw -> index of the label, or -1
        self._words: set[str] = set()
        self._soft = False  # whether any draw says more than one label
        self._draws = self._empty = 0
        self._lost = 0.0  # probability of what was left out

    def packed(self, probs: Mapping[str, float]) -> bytes:
        """The probabilities in the order of the labels, float64 (C,), that sum to 1."""
        words = tuple(probs)
        places = self._places.get(words)
        if places is None:
            places = self._places[words] = self._placed(words)
        self._soft |= len(words) > 1
        row = [0.0] * (len(self._labels) + 1)  # the last place takes what is left out
        for place, share in zip(places, probs.values(), strict=True):
            row[place] += share
        self._draws, self._lost = self._draws + 1, self._lost + row[-1] / sum(row)
        kept = row[:-1]
        if not sum(kept) > 0.0:  # it is sure of something else
            self._empty += 1
            kept = [1.0] * len(kept)
        return (np.array(kept) / sum(kept)).tobytes()

    def _placed(self, words: tuple[str, ...]) -> list[int]:
        labels = [self._naming.label(word) for word in words]
        self._words.update(words)
        return [self._labels.index(label) if label else -1 for label in labels]

    def say(self) -> None:
        """Log what was mapped.

        Raises:
            DrawsError: no draw has a word for one of the labels.
        """
        known = {label for word in self._words if (label := self._naming.label(word))}
        absent = [label for label in self._labels if label not in known]
        if absent and (self._soft or not known):
            raise DrawsError(
                f"{self._where}: the draws are over {', '.join(sorted(self._words))}, expected "
                f"{', '.join(self._labels)}: none says {', '.join(absent)}; label again with --labels, or "
                "bring the sets together with --map OLD=NEW"
            )
        if absent:
            _LOGGER.warning("%s: no draw votes for %s", self._where, ", ".join(absent))
        left_out = sorted(word for word in self._words if not self._naming.label(word))
        if left_out and self._lost > 0:
            _LOGGER.warning(
                "%s: no labels here: %s; left out with %.1f %% of the probability, the rest is scaled up",
                *(self._where, ", ".join(left_out), 100 * self._lost / self._draws),
            )  # fmt: skip
        if self._empty:
            _LOGGER.warning(
                "%s: %d of %d draws say nothing else: all labels alike stand in for them",
                self._where, self._empty, self._draws,
            )  # fmt: skip


def label_set(words: Iterable[str], naming: Naming, where: str) -> tuple[str, ...]:
    """The set that the words of draws make, under our names.

    Raises:
        DrawsError: it is none.
    """
    words = list(words)
    naming = naming.settled(words)
    if naming.labels:
        return naming.labels
    try:
        return naming.set_of({label for word in words if (label := naming.label(word))}, where)
    except MifuseError as error:
        raise DrawsError(str(error)) from error
