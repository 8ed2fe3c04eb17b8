"""Dimensions: columns in a stated range, CCC as the field measures it."""

from __future__ import annotations

import math
from pathlib import Path

import audmetric
import numpy as np
import pytest

from mifuse.clips.dimensions import dimension_values, has_dimensions, parse_ranges
from mifuse.clips.manifest import Clip
from mifuse.errors import ManifestError, MifuseError
from mifuse.runs.concordance import mean_ccc, score_dimensions
from mifuse_runtime.dimensions import concordance, in_unit

RANGES = {"arousal": (1.0, 7.0), "valence": (-1.0, 1.0)}


def clip(name: str = "a.wav", **extra: str) -> Clip:
    return Clip(name, Path(name), extra=extra)


@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0])
def test_concordance_is_that_of_audmetric(noise: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(3, 2, 200)
    found = 0.5 * truth + 1 + noise * rng.normal(size=200)
    assert concordance(truth, found) == pytest.approx(audmetric.concordance_cc(truth, found))


def test_concordance_of_constants() -> None:
    assert math.isnan(concordance([1, 1], [1, 1])) and math.isnan(concordance([1], [1]))
    assert concordance([1, 1], [1, 2]) == 0.0


def test_scores_are_of_each_dimension_in_the_users_range() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random((60, 2))
    truth[:20, 1] = np.nan
    found = np.clip(truth + 0.1 * rng.normal(size=(60, 2)), 0, 1)
    found[:20, 1] = 0.5
    speakers = [f"s{i % 6}" for i in range(60)]
    scores = score_dimensions(truth, found, RANGES, speakers)
    assert {name: score.n for name, score in scores.items()} == {"arousal": 60, "valence": 40}
    low, high = scores["arousal"].ccc_interval
    assert low < scores["arousal"].ccc < high
    assert scores["arousal"].mae == pytest.approx(6 * np.abs(truth - found)[:, 0].mean())
    assert scores["valence"].ccc == pytest.approx(concordance(truth[20:, 1], found[20:, 1]))
    assert mean_ccc(truth, found) == pytest.approx((scores["arousal"].ccc + scores["valence"].ccc) / 2)
    alone = score_dimensions(truth, found, RANGES, ["one"] * 60)
    assert math.isnan(alone["arousal"].ccc_interval[0])
    with pytest.raises(MifuseError, match="1 predictions hold NaN"):
        score_dimensions(truth, np.where(np.arange(120).reshape(60, 2) == 3, np.nan, found), RANGES)


def test_columns_are_read_in_their_range() -> None:
    clips = [clip(arousal="4", valence="0.5"), clip("b.wav", arousal="", valence=" -1 ")]
    values = dimension_values(clips, RANGES, "m.csv")
    np.testing.assert_allclose(values, [[0.5, 0.75], [np.nan, 0.0]])
    assert has_dimensions(clips, RANGES) and not has_dimensions([clip(arousal=" ")], RANGES)
    assert in_unit({"arousal": 4, "valence": 0.5}, RANGES) == pytest.approx([0.5, 0.75])
    assert math.isnan(in_unit({"valence": 0}, RANGES)[0])


@pytest.mark.parametrize("text", ["nan", "inf", "0.9", "7.01", "high", "4,5"])
def test_what_is_no_number_of_the_range_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match=r"m\.csv: arousal of 'a\.wav' is .* from 1 to 7"):
        dimension_values([clip(arousal=text, valence="0")], RANGES, "m.csv")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"EmoAct": "3"}, "rename 'EmoAct'"),
        ({"Arousal": "3"}, "rename 'Arousal'"),
        ({"arousl": "3"}, "rename 'arousl'"),
        ({"transcript": "3"}, "found 'transcript'"),
        ({}, "found nothing"),
    ],
)
def test_a_missing_column_is_said_with_what_is_near(columns: dict[str, str], words: str) -> None:
    with pytest.raises(ManifestError, match=f"no column 'arousal'.*{words}"):
        dimension_values([clip(**columns)], {"arousal": (1.0, 7.0)}, "m.csv")


@pytest.mark.parametrize(
    ("targets", "given", "words"),
    [
        ("arousal,", [], "name each dimension once"),
        ("arousal,Arousal", [], "name each dimension once"),
        ("label", [], "means something else"),
        ("a=b", [], "means something else"),
        ("arousal", ["7:1"], "LOWEST:HIGHEST"),
        ("arousal", ["1-7"], "LOWEST:HIGHEST"),
        ("arousal", ["nan:1"], "LOWEST:HIGHEST"),
        ("arousal", ["valence=1:7"], "name one of arousal"),
        ("arousal", ["arousal=1:7", "arousal=1:5"], "once"),
    ],
)
def test_targets_and_ranges_that_are_none(targets: str, given: list[str], words: str) -> None:
    with pytest.raises(MifuseError, match=words):
        parse_ranges(targets, given)


def test_the_range_is_zero_to_one_where_none_is_stated() -> None:
    assert parse_ranges("valence,arousal") == {"arousal": (0.0, 1.0), "valence": (0.0, 1.0)}
