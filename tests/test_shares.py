import numpy as np
import pytest

from mifuse.errors import MifuseError
from mifuse.fusion.shares import check_agrees, estimated_shares, parse_shares

LABELS = ("angry", "happy", "neutral", "sad")


def test_the_rest_is_spread():
    np.testing.assert_allclose(parse_shares("neutral=.7", LABELS), [0.1, 0.1, 0.7, 0.1])
    np.testing.assert_allclose(parse_shares(" sad = 1 ", LABELS).argmax(), 3)
    assert (parse_shares("sad=1", LABELS) > 0).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("neutral", "write EMOTION=SHARE, as in angry=0.7"),
        ("calm=.5", "the emotions are angry, happy, neutral, sad"),
        ("sad=.5,sad=.2", "sad twice"),
        ("sad=much", "the share of sad is 'much'"),
        ("sad=-1", "from 0 to 1"),
        ("sad=nan", "from 0 to 1"),
        ("sad=.8,angry=.4", "sum to 1.2: they must sum to at most 1"),
        ("sad=.2,angry=.2,happy=.2,neutral=.2", "they must sum to 1, since every emotion has one"),
    ],
)
def test_bad_shares(text, message):
    with pytest.raises(MifuseError, match=message.replace(".", r"\.")):
        parse_shares(text, LABELS)


def test_estimates_cover_the_truth():
    """Labels that like one class too much are put right; two standard errors cover the share mostly."""
    shares = np.array([0.1, 0.1, 0.7, 0.1])
    covered, errors, plain = [], [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.choice(4, 400, p=shares)
        said = np.where(rng.random(400) < 0.5, truth, rng.integers(0, 4, 400))
        labels = 0.7 * np.eye(4)[said] + 0.075
        known = np.full(400, -1)
        known[:40] = truth[:40]
        found, error = estimated_shares(labels, known)
        actual = np.bincount(truth, minlength=4) / 400
        covered.append(np.abs(found - actual) < 2 * error)
        errors.append(np.abs(found - actual).sum())
        plain.append(np.abs(labels.mean(axis=0) - actual).sum())
    assert np.mean(covered) > 0.9
    assert np.mean(errors) < 0.6 * np.mean(plain)


def test_shares_against_a_check_set():
    known = np.full(200, -1)
    known[:40] = np.repeat([0, 1, 2, 3], 10)
    check_agrees(np.full(4, 0.25), known, LABELS)
    with pytest.raises(MifuseError, match=r"--shares says 85% neutral, the check set 10 of 40 \(25%\)"):
        check_agrees(np.array([0.05, 0.05, 0.85, 0.05]), known, LABELS)
