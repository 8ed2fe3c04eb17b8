"""What tokens cost. The numbers are in prices.json, with their date; others are asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources

from mifuse.errors import MifuseError

MILLION = 1e6


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    input: float
    output: float
    audio: float
    cache_read: float
    cache_write: float
    date: str = ""
    """When the vendor's page was read; empty for a price that the user gave."""

    def usd(self, usage: Mapping[str, int]) -> float:
        """Price of the tokens of `usage`, by kind.

        >>> Price(input=2.5, output=10, audio=32, cache_read=2.5, cache_write=2.5).usd({"audio": 1000})
        0.032
        """
        return float(sum(getattr(self, kind) * count for kind, count in usage.items())) / MILLION

    def most(self, usage: Mapping[str, int]) -> float:
        """The most that such tokens can cost: input may turn out to be written to the cache."""
        return replace(self, input=max(self.input, self.cache_write)).usd(usage)


def price_of(teacher: str, model: str, given: str | None = None, batch: bool = False) -> Price:
    """Price of a model, from `given` or else from the file.

    Args:
        given: `INPUT,OUTPUT[,AUDIO]` in USD per million tokens; `0` for a server of one's own.
        batch: as part of a batch.

    Raises:
        MifuseError: `given` is no price, or the model is not in the file and nothing is given.
    """
    if given is not None:
        return _parse(given)
    data = json.loads(resources.files("mifuse.teachers").joinpath("prices.json").read_text("utf-8"))
    found = data["models"].get(teacher, {}).get(model)
    if found is None:
        raise MifuseError(
            f"no price is known for {teacher} model {model!r}: "
            "give it with --price INPUT,OUTPUT[,AUDIO] in USD per million tokens, 0 for a server of your own"
        )
    share = found["batch"] if batch else 1.0
    kinds = ("input", "output", "audio", "cache_read", "cache_write")
    return Price(**{kind: share * found.get(kind, found["input"]) for kind in kinds}, date=data["date"])


def _parse(text: str) -> Price:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if numbers == [0.0]:
        numbers = [0.0, 0.0]
    if len(numbers) not in (2, 3) or not all(0 <= number < math.inf for number in numbers):
        raise MifuseError(f"--price {text!r}: expected INPUT,OUTPUT or INPUT,OUTPUT,AUDIO, as in 2.5,10,32")
    audio = numbers[2] if len(numbers) == 3 else numbers[0]
    # Cached input is billed as input: too much rather than too little where the discount is not known.
    return Price(numbers[0], numbers[1], audio, cache_read=numbers[0], cache_write=1.25 * numbers[0])
