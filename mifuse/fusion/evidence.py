"""The default weighting: every teacher counts as much as its reliability, estimated without labels.

A teacher's mean draw is made as sure as its reliability says that it is right; the labels are the product of
the teachers, as for independent witnesses. A classifier errs where the voices mislead it, and a probe on
statistics of the same voices repeats such errors; so its opinion counts for less, unless it is good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mifuse.fusion.refinement import RefineConfig, refine, toward
from mifuse.fusion.reliability import as_sure_as_right, floored, reliabilities

Array = NDArray[np.float64]

# Exponent of a classifier's opinion: LEAST up to a reliability of WEAK (UA 50 % of four classes), 1 from FULL
# on. Labels of 44 archives of benchmarks.field: a quarter for all 70.1 % UA, a half 69.6, one 68.0; where the
# classifier is as good as the LALM, one is worth 4 to 8 points more than a quarter.
LEAST, WEAK, FULL = 0.25, 1 / 3, 0.6


@dataclass(frozen=True)
class Evidence:
    """Labels of N clips from their teachers alone, and how good the teachers are expected to be."""

    labels: Array
    """(N, C) product of the opinions."""
    views: list[Array]
    """(N, C) each: mean draws of the teachers as they came, LALMs first, the classifier last."""
    opinions: list[Array]
    """The views with the class prior of the labels, and a probe of the voices, fitted to the LALMs alone."""
    reliabilities: Array
    """Of each opinion: 0 is chance, 1 the truth; NaN where one view alone says nothing of itself."""


def weigh(
    lalms: Sequence[Array],
    classifier: Array | None,
    statistics: Callable[[Array], Array] | Array,
    config: RefineConfig,
    seed: int = 0,
    *,
    known: NDArray[np.int64] | None = None,
    shares: Array | None = None,
) -> Evidence:
    """Weigh the teachers' mean draws, (N, C) each, by their agreement with each other and with a probe.

    The probe is fitted to the LALMs' labels, see `mifuse.fusion.refinement`. With one LALM alone there are
    two views, and nothing says how good either is: it counts as it came.
    """
    mean = np.mean(lalms, axis=0)
    views = [*lalms] if classifier is None else [*lalms, classifier]
    if len(views) < 2:
        return Evidence(mean, views, [mean], np.full(1, np.nan))
    probe = refine(mean, statistics, config, seed, known=known, shares=shares).probe
    opinions = [*(toward(floored(view), config.prior, shares) for view in views), probe]
    estimates = reliabilities(opinions)
    exponents = [1 / len(lalms)] * len(lalms)
    exponents += [] if classifier is None else [exponent(float(estimates[len(lalms)]))]
    logs = np.zeros_like(mean)
    for opinion, reliability, power in zip(opinions, estimates, exponents, strict=False):  # not the probe
        sure = toward(as_sure_as_right(opinion, float(reliability)), config.prior, shares)
        logs += power * np.log(sure)
    labels = np.exp(logs - logs.max(axis=1, keepdims=True))
    return Evidence(labels / labels.sum(axis=1, keepdims=True), views, opinions, estimates)


def exponent(reliability: float) -> float:
    """How much a classifier's opinion counts beside a LALM's, `LEAST` to 1."""
    return float(np.clip(LEAST + (1 - LEAST) * (reliability - WEAK) / (FULL - WEAK), LEAST, 1))
