"""Fusion: the properties that the paper's formulas promise, and agreement with a slow textbook version."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mifuse.errors import DrawsError, MifuseError
from mifuse.fusion.weighting import WEIGHTINGS, Array, entropy, fuse, mutual_information


@st.composite
def draws(draw: st.DrawFn, clips: int | None = None, labels: int | None = None) -> Array:
    """Draws (K, N, C) with zeros, near-certain rows and rounded steps among them."""
    n, c = clips or draw(st.integers(1, 4)), labels or draw(st.integers(2, 5))
    k = draw(st.integers(1, 6))
    numbers = st.one_of(st.floats(1e-6, 1.0), st.just(0.0), st.sampled_from([0.05, 0.5, 1.0]))
    flat = draw(st.lists(numbers, min_size=k * n * c, max_size=k * n * c))
    p = np.array(flat).reshape(k, n, c)
    p[p.sum(axis=-1) == 0] = 1.0
    return p / p.sum(axis=-1, keepdims=True)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    n, c = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    return draw(draws(n, c)), draw(draws(n, c))


def textbook_entropy(row: list[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def textbook_mi(p: Array, clip: int) -> float:
    """Mean Kullback-Leibler divergence of the draws from their mean: the other way to write MI."""
    k, _, c = p.shape
    mean = [math.fsum(p[i, clip, j] for i in range(k)) / k for j in range(c)]
    return (
        math.fsum(
            p[i, clip, j] * math.log(p[i, clip, j] / mean[j])
            for i in range(k)
            for j in range(c)
            if p[i, clip, j] > 0
        )
        / k
    )


# Those that need no third opinion.
ALONE = sorted(set(WEIGHTINGS) - {"reliability"})


def textbook_fuse(lalm: Array, classifier: Array, weighting: str, temperature: float) -> list[list[float]]:
    fused = []
    for clip in range(lalm.shape[1]):
        means, weights = [], []
        for p in (lalm, classifier):
            mean = [math.fsum(p[:, clip, j]) / len(p) for j in range(p.shape[2])]
            doubt = {"mi": textbook_mi(p, clip), "entropy": textbook_entropy(mean), "uniform": 0.0}[weighting]
            means.append(mean)
            weights.append(math.exp(-doubt / temperature))
        fused.append([(weights[0] * a + weights[1] * b) / sum(weights) for a, b in zip(*means, strict=True)])
    return fused


@given(draws())
def test_mutual_information_is_within_its_bounds(p: Array) -> None:
    mi = mutual_information(p)
    assert mi.shape == (p.shape[1],)
    assert (mi >= 0).all()
    assert (mi <= math.log(min(p.shape[0], p.shape[2])) + 1e-9).all()


@given(draws(), st.integers(1, 5))
def test_equal_draws_have_no_mutual_information(p: Array, times: int) -> None:
    assert mutual_information(np.repeat(p[:1], times, axis=0)) == pytest.approx(0.0, abs=1e-12)


def test_draws_that_contradict_each_other_reach_the_upper_bound() -> None:
    one_hot = np.eye(4)[:, None, :]
    assert mutual_information(one_hot) == pytest.approx(math.log(4))


@given(draws())
def test_mutual_information_agrees_with_the_textbook(p: Array) -> None:
    assert mutual_information(p) == pytest.approx([textbook_mi(p, n) for n in range(p.shape[1])], abs=1e-9)


@given(draws())
def test_entropy_agrees_with_the_textbook(p: Array) -> None:
    assert entropy(p[0]) == pytest.approx([textbook_entropy(row) for row in p[0].tolist()], abs=1e-12)


@given(pairs(), st.sampled_from(ALONE), st.sampled_from([0.01, 0.3, 1.0, 10.0]))
def test_fused_labels_agree_with_the_textbook(
    pair: tuple[Array, Array], weighting: str, temperature: float
) -> None:
    fused = fuse(*pair, weighting=weighting, temperature=temperature)
    expected = textbook_fuse(*pair, weighting, temperature)
    assert fused.probs == pytest.approx(np.array(expected), abs=1e-8)


@given(pairs(), st.sampled_from(ALONE), st.sampled_from([1e-6, 1.0]))
def test_fused_rows_are_distributions(pair: tuple[Array, Array], weighting: str, temperature: float) -> None:
    fused = fuse(*pair, weighting=weighting, temperature=temperature)
    assert fused.probs.sum(axis=1) == pytest.approx(1.0)
    assert (fused.probs >= 0).all()
    assert ((fused.lalm_weight >= 0) & (fused.lalm_weight <= 1)).all()


@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_draws_and_classes_does_not_matter(pair: tuple[Array, Array], random) -> None:  # type: ignore[no-untyped-def]
    lalm, classifier = pair
    draw_order = random.sample(range(len(lalm)), len(lalm))
    class_order = random.sample(range(lalm.shape[2]), lalm.shape[2])
    fused = fuse(lalm, classifier)
    other = fuse(lalm[draw_order][..., class_order], classifier[..., class_order])
    assert other.probs == pytest.approx(fused.probs[:, class_order])
    assert other.lalm_mi == pytest.approx(fused.lalm_mi, abs=1e-9)


@given(pairs())
def test_swapping_the_teachers_swaps_their_shares(pair: tuple[Array, Array]) -> None:
    one, other = fuse(*pair), fuse(*reversed(pair))
    assert one.lalm_weight == pytest.approx(1 - other.lalm_weight)
    assert one.probs == pytest.approx(other.probs)


@given(pairs())
def test_uniform_weighting_is_the_plain_average(pair: tuple[Array, Array]) -> None:
    lalm, classifier = pair
    average = (lalm.mean(axis=0) + classifier.mean(axis=0)) / 2
    assert fuse(lalm, classifier, weighting="uniform").probs == pytest.approx(average)


def test_float32_draws_are_renormalised() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), size=(5, 100)).astype(np.float32)
    assert np.abs(fuse(p, p[:2]).probs.sum(axis=1) - 1).max() < 1e-12


def test_no_clips_give_no_labels() -> None:
    assert fuse(np.zeros((3, 0, 4)), np.zeros((2, 0, 4))).probs.shape == (0, 4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((2, 3), 0.5), r"shape \(2, 3\)"),
        (np.zeros((0, 3, 2)), r"shape \(0, 3, 2\)"),
        ([[[0.5, 0.6]]], "sums to 1.1, not 1"),
        ([[[1.5, -0.5]]], "draw 0 of clip 0 has a negative or NaN"),
        ([[[np.nan, 1.0]]], "negative or NaN"),
        ([[[np.inf, 0.0]]], "sums to inf"),
    ],
)
def test_what_are_no_distributions_are_refused(bad: object, message: str) -> None:
    with pytest.raises(DrawsError, match=message) as error:
        mutual_information(bad)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_teachers_of_different_clips_or_labels_are_refused() -> None:
    with pytest.raises(DrawsError, match="LALM draws cover 3 clips x 4 labels, classifier draws 3 x 2"):
        fuse(np.full((2, 3, 4), 0.25), np.full((2, 3, 2), 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weighting": "best"}, "unknown weighting 'best': choose one of mi, entropy, uniform"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, object], message: str) -> None:
    half = np.full((1, 1, 2), 0.5)
    with pytest.raises(MifuseError, match=message):
        fuse(half, half, **options)  # type: ignore[arg-type]


def test_reliability_trusts_who_agrees_with_the_reference() -> None:
    lalm, classifier = [[[0.8, 0.2]]], [[[0.2, 0.8]]]
    fused = fuse(lalm, classifier, "reliability", reference=[[1.0, 0.0]])
    np.testing.assert_allclose(fused.lalm_weight, [0.8])
    np.testing.assert_allclose(fused.probs, [[0.68, 0.32]])
    with pytest.raises(MifuseError, match="needs a reference"):
        fuse(lalm, classifier, "reliability")
