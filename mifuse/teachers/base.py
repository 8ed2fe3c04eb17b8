"""What a teacher is, where a draw comes from, and what counts as a distribution."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mifuse.clips.labels import LONGEST, Naming, folded
from mifuse.clips.manifest import Clip
from mifuse.errors import DrawsError
from mifuse_runtime.dimensions import Ranges

# Verbalised probabilities come in steps of 0.05: a sum further off than two steps is not rounding.
SUM_TOLERANCE = 0.1


@dataclass(frozen=True, order=True)
class Source:
    """Where draws come from; draws of different sources are never mixed.

    >>> str(Source("openai", "voxtral", "9f86d081884c")), str(Source("stand-in-lalm-1"))
    ('openai/voxtral@9f86d081', 'stand-in-lalm-1')
    """

    teacher: str
    model: str = ""
    prompt: str = ""
    """Hash of everything that shapes the questions: template, labels, variants, settings."""

    def __str__(self) -> str:
        model = f"/{self.model}" if self.model else ""
        return self.teacher + model + (f"@{self.prompt[:8]}" if self.prompt else "")

    def is_named(self, name: str) -> bool:
        """Whether `name` is this teacher, teacher/model or teacher/model@prompt."""
        return name in (self.teacher, str(Source(self.teacher, self.model)), str(self))


@dataclass(frozen=True)
class Answer:
    """One draw as the teacher gave it, and what it cost."""

    probs: Mapping[str, float]
    """Empty where it says numbers alone."""
    raw: str | None = None
    """The answer, word for word."""
    usage: Mapping[str, int] | None = None
    """Tokens of the request by kind; those of several draws from one request are at the first of them."""
    price_usd: float | None = None
    """Of the request, at the first of its draws too."""
    request_id: str | None = None
    dimensions: Mapping[str, float] = field(default_factory=dict)
    """Numbers beside the probabilities, in the range that was asked for."""


@dataclass(frozen=True)
class Invalid:
    """An answer that is no distribution over the labels: paid, kept, never used as a draw."""

    problem: str
    attempt: int
    """How many invalid answers this draw had before."""
    raw: str | None = None
    usage: Mapping[str, int] | None = None
    price_usd: float | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Said:
    """One answer in a reply, not yet judged."""

    text: str = ""
    probs: Mapping[str, float] | None = None
    """The distribution, where it needs no parsing."""
    problem: str = ""
    """Why the answer cannot be used whatever its text is: refused, cut off."""
    dimensions: Mapping[str, float] = field(default_factory=dict)
    """Numbers beside `probs`."""


@dataclass(frozen=True)
class Reply:
    """What one request brought, for the first draws that it was about or for all of them."""

    said: Sequence[Said]
    usage: Mapping[str, object] = field(default_factory=dict)
    """Tokens by kind: input, audio, cache_read, cache_write, output; no token is in two kinds. As the service
    says them: `replies.billed` decides what is booked."""
    request_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case names; the rate limits are read from them."""


class Teacher(Protocol):
    """Answers clip by clip. Parsing, storing, resuming, retries, limits and money are done for it."""

    source: Source
    """Under what its draws are stored."""
    default_draws: int
    """K when the user does not say."""
    concurrency: int
    """The most requests that may be open at a time."""
    deadline: float
    """Seconds that one `ask` may take, tries with less and waiting for a long clip included."""
    per_request: int
    """How many draws share a prompt and so may be asked in one request: draws 0..n-1, n..2n-1, …"""

    async def ask(self, clip: Clip, draws: Sequence[int], attempt: int, key: str) -> Reply:
        """One request. The arguments, and nothing else, decide what is asked.

        Args:
            draws: of one prompt.
            attempt: how many invalid answers these draws had; another prompt is used for each.
            key: names the request; the same when it is sent again because its answer did not arrive.

        Raises:
            ServiceError: the request failed; `mifuse.teachers.pacing` decides what comes next.
            DrawsError, AudioError: this clip cannot be asked about; the others go on.
            Any other error stops the run, after the requests that are open have been answered and stored.
        """
        ...

    def most_usage(self, clip: Clip, draws: int) -> Mapping[str, int]:
        """The most tokens that a request can be billed for, by kind; empty where nothing is."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def check_distribution(probs: object, where: str) -> dict[str, float]:
    """`probs` as given, word -> probability: neither named, renormalised nor floored.

    Args:
        where: start of the error's line.

    Raises:
        DrawsError: not a mapping, words that cannot be labels or occur twice, not numbers, negative, NaN, or
            a sum further than 0.1 from 1.
    """
    if not isinstance(probs, Mapping) or not probs:
        raise DrawsError(f"{where}: probs is {probs!r}: expected a probability for each label")
    for name, value in probs.items():
        if not isinstance(name, str) or not folded(name) or not name.isprintable() or len(name) > LONGEST:
            raise DrawsError(f"{where}: {str(name)[:LONGEST]!r} cannot be a label: rename it")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value <= 1 + SUM_TOLERANCE
        ):
            raise DrawsError(f"{where}: probability of {name!r} is {value!r}: expected a number from 0 to 1")
    if twice := _twice(tuple(probs)):
        raise DrawsError(f"{where}: a repeated label {twice!r}: it means the same as another one, remove it")
    total = sum(probs.values())
    if abs(total - 1.0) > SUM_TOLERANCE + 1e-6:
        raise DrawsError(f"{where}: the probabilities sum to {total:.4g}, not 1: correct or remove this draw")
    return {name: float(value) for name, value in probs.items()}


def check_said(
    probs: object, dimensions: Mapping[str, float], where: str
) -> tuple[dict[str, float], dict[str, float]]:
    """What a draw says: probabilities as of `check_distribution`, or none where it has numbers alone.

    Raises:
        DrawsError: as of `check_distribution`.
    """
    return check_distribution(probs, where) if probs or not dimensions else {}, dict(dimensions)


def check_dimensions(values: object, where: str, ranges: Ranges | None = None) -> dict[str, float]:
    """Numbers of a draw, name -> value.

    Args:
        ranges: that were asked for: all of these, each within its range, and no others; None takes any.

    Raises:
        DrawsError: not a mapping, not numbers, NaN or infinite, or not as asked for.
    """
    if not isinstance(values, Mapping):
        raise DrawsError(f"{where}: dimensions is {str(values)[:40]!r}: expected a number for each")
    for name, value in values.items():
        low, high = (ranges or {}).get(name, (-math.inf, math.inf))
        if ranges is not None and name not in ranges:
            raise DrawsError(
                f"{where}: an unknown dimension {str(name)[:40]!r}, expected {', '.join(ranges)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DrawsError(f"{where}: {str(name)[:40]} is {str(value)[:40]!r}: expected a number")
        if not low <= value <= high:
            raise DrawsError(f"{where}: {name} is {value:g}: expected a number from {low:g} to {high:g}")
    if absent := [name for name in ranges or () if name not in values]:
        raise DrawsError(f"{where}: no number for {', '.join(absent)}: every answer must name all dimensions")
    return {str(name): float(value) for name, value in values.items()}


@functools.lru_cache(1024)
def _twice(words: tuple[str, ...]) -> str:
    """The first word that means the same as one before it."""
    found: set[str | None] = set()
    for word in words:
        emotion = Naming().label(word)
        if emotion in found:
            return word
        found.add(emotion)
    return ""


def check_answer(probs: object, labels: Sequence[str], where: str) -> dict[str, float]:
    """`probs` of an answer to a question that named the labels, under these names: all of them, and no other
    with a probability above 0.

    Raises:
        DrawsError: as of `check_distribution`, or other labels.

    >>> check_answer({"Anger": 0.25, "happy": 0.7, "bored": 0}, ("angry", "happy"), "the answer")
    {'angry': 0.25, 'happy': 0.7}
    """
    naming = Naming(tuple(labels))
    found: dict[str, float] = {}
    for name, value in check_distribution(probs, where).items():
        label = naming.label(name)
        if label is None and value == 0.0:
            continue
        if label is None or label in found:
            what = "an unknown" if label is None else "a repeated"
            raise DrawsError(f"{where}: {what} label {name!r}, expected {', '.join(labels)}")
        found[label] = value
    if absent := [label for label in labels if label not in found]:
        raise DrawsError(
            f"{where}: no probability for {', '.join(absent)}: every answer must name all labels"
        )
    return found


def choose_source(sources: Collection[Source], name: str | None, where: str) -> Source:
    """The one source that `name` means; None is enough where there is only one.

    Raises:
        DrawsError: none or several match.
    """
    known = ", ".join(map(str, sorted(sources)))
    if not sources:
        raise DrawsError(f"{where}: holds no draws: get some with `mifuse label`")
    exact = [source for source in sources if str(source) == name]
    matching = exact or [source for source in sources if name is None or source.is_named(name)]
    if not matching:
        raise DrawsError(f"{where}: no draws of {name!r}: choose one of {known}")
    if len(matching) > 1:
        raise DrawsError(f"{where}: holds draws of several teachers: choose one of {known}")
    return matching[0]
