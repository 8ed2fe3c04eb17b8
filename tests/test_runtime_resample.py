"""The resampler: exact for sines, no aliases, the same whatever the pieces."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mifuse_runtime import AudioError
from mifuse_runtime.resample import Resampler, _filters, resample
from tests.bundles import tone

RATES = (8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000)


def decibels(error: np.ndarray) -> float:
    """RMS relative to a full sine."""
    return float(20 * np.log10(np.sqrt(np.mean(error**2) * 2) + 1e-12))


@pytest.mark.parametrize("rate", RATES)
def test_sines_pass(rate: int) -> None:
    for share in (0.02, 0.3, 0.7, 0.92):
        hertz = share * min(rate, 16_000) / 2
        out = resample(tone(1, hertz, rate, level=1), rate, 16_000)
        assert out.size == 16_000
        assert out.dtype == np.float32
        assert decibels((out - tone(1, hertz, 16_000, level=1))[300:-300]) < -80


@pytest.mark.parametrize("rate", [rate for rate in RATES if rate > 16_000])
def test_no_aliases(rate: int) -> None:
    for hertz in (8000, 9000, 0.49 * rate):
        assert decibels(resample(tone(1, hertz, rate, level=1), rate, 16_000)[300:-300]) < -80


@given(cuts=st.lists(st.integers(0, 5000), max_size=8), rate=st.sampled_from((8000, 16_000, 44_100, 48_000)))
@settings(max_examples=20, deadline=None)
def test_pieces_make_no_difference(cuts: list[int], rate: int) -> None:
    samples = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    resampler = Resampler(rate, 16_000)
    pieces = [resampler.feed(piece) for piece in np.split(samples, sorted(cuts))]
    out = np.concatenate([*pieces, resampler.flush()])
    np.testing.assert_allclose(out, resample(samples, rate, 16_000), atol=1e-5)


def test_length_and_level() -> None:
    for count in (1, 2, 159, 441, 1000):
        assert resample(np.ones(count, np.float32), 44_100, 16_000).size == -(-count * 160 // 441)
    assert resample(np.ones(44_100, np.float32), 44_100, 16_000)[200:-200] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("rate", [0, -16_000, 999, 44_100.5, 10**9, float("nan")])
def test_rates_that_cannot_be_used(rate: float) -> None:
    with pytest.raises(AudioError, match="sample rate is"):
        resample(np.zeros(10, np.float32), rate, 16_000)


def test_any_whole_rate_is_close() -> None:
    for rate in (1001, 44_099, 95_890, 767_999):
        assert resample(np.zeros(rate, np.float32), rate, 16_000).size == pytest.approx(16_000, rel=8e-4)


@pytest.mark.parametrize("rate", [*RATES, 7919, 44_099])
def test_products_are_the_sums_that_the_filters_say(rate: int) -> None:
    samples = np.random.default_rng(1).standard_normal(3001).astype(np.float32)
    out = resample(samples, rate, 16_000)
    down, up = Fraction(rate, 16_000).limit_denominator(640).as_integer_ratio()
    filters = _filters(down, up).astype(np.float64)
    half = filters.shape[1] // 2
    padded = np.pad(samples.astype(np.float64), (half, filters.shape[1] + down))
    for place in np.linspace(0, out.size - 1, 40).astype(int):
        start = place * down // up
        wanted = filters[place % up] @ padded[start : start + filters.shape[1]]
        assert out[place] == pytest.approx(wanted, abs=1e-5)
