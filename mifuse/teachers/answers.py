"""What a model wrote -> a distribution, or the reason why it is none. Nothing is guessed or repaired."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from mifuse.errors import DrawsError
from mifuse.teachers.base import check_answer, check_dimensions
from mifuse_runtime.dimensions import Ranges

LEAST_MASS = 0.5  # of a label's tokens; below it the model was about to say something else


class InvalidAnswerError(DrawsError):
    """The text is no distribution over the labels."""


def parse(text: str, labels: Sequence[str]) -> dict[str, float]:
    """The one JSON object in `text`, alone or amid prose, as probabilities of `labels`.

    Raises:
        InvalidAnswerError: no object, several, a label twice, other labels, or no distribution.

    >>> parse('Here: {"angry": 0.8, "sad": 0.2}.', ("angry", "sad"))
    {'angry': 0.8, 'sad': 0.2}
    """
    return parse_all(text, labels, {})[0]


def parse_all(text: str, labels: Sequence[str], ranges: Ranges) -> tuple[dict[str, float], dict[str, float]]:
    """The probabilities, as of `parse`, and the numbers beside them in the same object.

    Raises:
        InvalidAnswerError: as of `parse`, or a dimension is missing, no number or out of its range.

    >>> parse_all('{"angry": 0.8, "sad": 0.2, "arousal": 6}', ("angry", "sad"), {"arousal": (1, 7)})
    ({'angry': 0.8, 'sad': 0.2}, {'arousal': 6.0})
    """
    if not text.strip():
        raise InvalidAnswerError("the answer is empty")
    found = list(_objects(text))
    if len(found) != 1:
        what = "no JSON object" if not found else f"{len(found)} JSON objects, one is expected"
        raise InvalidAnswerError(f"{what} in the answer")
    values = {name: value for name, value in found[0].items() if name in ranges}
    probs = {name: value for name, value in found[0].items() if name not in ranges}
    try:
        numbers = check_dimensions(values, "the answer", ranges)
        return {} if not (labels or probs) else check_answer(probs, labels, "the answer"), numbers
    except DrawsError as error:
        raise InvalidAnswerError(str(error)) from error


def _objects(text: str) -> Iterable[Any]:
    """The outermost JSON objects in a text."""
    decoder = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse)
    at = text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):  # also a whole number of thousands of digits
            end = at + 1
        else:
            yield found
        at = text.find("{", end)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidAnswerError("the answer names a label twice")
    return found


def _refuse(constant: str) -> float:
    raise InvalidAnswerError(f"the answer has {constant} for a probability")


def from_tokens(tokens: Iterable[tuple[str, object]], labels: Sequence[str]) -> dict[str, float]:
    """Probabilities of labels from the likeliest first tokens of a one-word answer.

    A token counts for the label that it begins; one that begins two labels, or none, counts for nobody.

    Args:
        tokens: text and natural logarithm of the probability.

    Raises:
        InvalidAnswerError: the labels' tokens have less than half of the probability.

    >>> from_tokens([("ang", math.log(0.6)), (" Sad", math.log(0.2)), ("I", math.log(0.2))], ("angry", "sad"))
    {'angry': 0.75, 'sad': 0.25}
    """
    mass = dict.fromkeys(labels, 0.0)
    for token, logprob in tokens:
        if isinstance(logprob, bool) or not isinstance(logprob, int | float):
            raise InvalidAnswerError(f"the probability of a token is {str(logprob)[:40]}")
        word = token.strip(" \"'\n\t▁Ġ").lower()
        begun = [label for label in labels if word and label.startswith(word)]
        if len(begun) == 1:
            mass[begun[0]] += math.exp(max(-1e3, min(logprob, 0.0)))
    total = sum(mass.values())
    if not total >= LEAST_MASS:
        raise InvalidAnswerError(
            f"the labels' tokens have {total:.0%} of the probability, at least half is expected"
        )
    return {label: round(value / total, 6) for label, value in mass.items()}
