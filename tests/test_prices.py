"""Prices: from the file or from the user, never guessed."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from mifuse.errors import MifuseError
from mifuse.teachers.prices import price_of

DATA = json.loads(resources.files("mifuse.teachers").joinpath("prices.json").read_text("utf-8"))


def test_every_entry_of_the_file_can_be_used() -> None:
    for teacher, models in DATA["models"].items():
        for model, entry in models.items():
            price = price_of(teacher, model)
            assert price.usd({"input": 1_000_000, "output": 1_000_000}) == entry["input"] + entry["output"]
            assert price.date == DATA["date"]


def test_a_batch_costs_its_share() -> None:
    whole, half = (price_of("anthropic", "claude-opus-4-5", batch=batch) for batch in (False, True))
    usage = {"input": 900, "output": 40, "cache_read": 300, "cache_write": 10}
    assert half.usd(usage) == pytest.approx(whole.usd(usage) / 2)


def test_the_most_counts_input_as_written_to_the_cache() -> None:
    price = price_of("anthropic", "claude-haiku-4-5")
    assert price.most({"input": 1_000_000}) == 1.25
    assert price.usd({"input": 1_000_000}) == 1


def test_prices_of_the_user() -> None:
    assert price_of("openai", "mine", "0").usd({"input": 5, "audio": 5, "output": 5}) == 0
    assert price_of("openai", "mine", "1,2").usd({"audio": 1_000_000}) == 1
    assert price_of("openai", "mine", "1,2,3").usd({"audio": 1_000_000, "output": 500_000}) == 4
    # What the user says counts, also where the file knows better.
    assert price_of("openai", "gpt-audio", "1,1,1").usd({"audio": 1_000_000}) == 1


@pytest.mark.parametrize("given", ["", "free", "1", "1,2,3,4", "-1,2", "nan,1", "inf,1"])
def test_what_is_no_price_is_refused(given: str) -> None:
    with pytest.raises(MifuseError, match=r"--price .*: expected INPUT,OUTPUT"):
        price_of("openai", "mine", given)


def test_an_unknown_model_asks_for_its_price() -> None:
    with pytest.raises(MifuseError, match="no price is known for openai model 'gpt-9': give it with --price"):
        price_of("openai", "gpt-9")
