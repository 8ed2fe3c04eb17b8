"""Percentiles of times with their intervals, and whether two of them differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def percentiles(times: Sequence[float]) -> dict[str, Any]:
    """p50, p90 and p99 of times, and the 95 % interval of the p50.

    The interval is of order statistics, which assumes nothing of the distribution: ranks that a binomial
    count of n calls at 1/2 leaves with 2.5 % on either side.

    >>> percentiles(range(1, 101))["p50_interval"]
    [40.0, 61.0]
    """
    ordered = np.sort(np.asarray(times, np.float64))
    count = len(ordered)
    half = 1.96 * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - half) - 1) if count > 5 else 0
    high = min(count - 1, math.ceil(count / 2 + half)) if count > 5 else count - 1
    p50, p90, p99 = (float(value) for value in np.percentile(ordered, (50, 90, 99)))
    return {
        "calls": count,
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "p50_interval": [float(ordered[low]), float(ordered[high])],
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each time of two results whose intervals do not meet, and a closing one."""
    lines, held = [], 0
    before = {row["name"]: row for row in old["rows"]}
    for row in new["rows"]:
        for key, now in row["ms"].items():
            then = before.get(row["name"], {}).get("ms", {}).get(key)
            if not then:
                continue
            held += 1
            (a, b), (c, d) = then["p50_interval"], now["p50_interval"]
            if b < c or d < a:
                factor = now["p50"] / then["p50"]
                lines.append(
                    f"{row['name']}, {key}: {then['p50']:.3g} -> {now['p50']:.3g} ms ({factor:.2f} times)"
                )
    return [*lines, f"{held - len(lines)} of {held} times are within each other's 95 % intervals"]
