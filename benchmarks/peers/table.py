"""The tables of a result, and what changed since an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mifuse.exporting.timing import changes

SECONDS = (1, 3, 10)
HEAD = [
    "CPU ms, p50",
    "1 s",
    "3 s",
    "10 s",
    "3 s alone",
    "all cores, wall",
    "3 s, wall: p50 / p90 (at most) / p99",
    "times ours",
]
HEAD += ["first result", "peak", "installed"]


def table(result: Mapping[str, Any]) -> str:
    """The Markdown table of a result."""
    lines = ["| " + " | ".join(HEAD) + " |", "| --- |" + " ---: |" * (len(HEAD) - 1)]
    ours = next((row["ms"]["3 s, in turn, cpu"]["p50"] for row in result["rows"] if row["ms"]), None)
    for row in result["rows"]:
        if "left out" in row:
            cells = ["-"] * (len(HEAD) - 2) + [row["left out"]]
            lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
            continue
        longest = f"{SECONDS[-1]} s, in turn"  # all that a peer of one fixed length has
        length = "3 s, in turn" if "3 s, in turn, cpu" in row["ms"] else longest
        cpu, wall = (row["ms"][f"{length}, {clock}"] for clock in ("cpu", "wall"))
        cells = [_ms(row["ms"].get(f"{seconds} s, in turn, cpu")) for seconds in SECONDS]
        many = next((times for key, times in row["ms"].items() if "threads" in key), None)
        cells += [_ms(row["ms"].get("3 s, alone, cpu")), _ms(many)]
        most = f" ({_short(wall['p90_most'])})" if wall.get("p90_most") else ""
        cells += [f"{_short(wall['p50'])} / {_short(wall['p90'])}{most} / {_short(wall['p99'])}"]
        cells += [_short(cpu["p50"] / ours) if ours else "-"]
        cells += [f"{row['first_s']:.2f} s", f"{row['peak_mb']:.0f} MB", f"{row['installed_mb']:.0f} MB"]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ms(times: Mapping[str, Any] | None) -> str:
    return _short(times["p50"]) if times else "-"


def _short(value: float) -> str:
    """Three digits, without an exponent.

    >>> [_short(value) for value in (0.01234, 1.234, 1234.5)]
    ['0.0123', '1.23', '1234']
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def agreement(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """How a second run agrees with the intervals of the first one, and what the machine as a whole did."""
    both = _both(old, new)
    speed = _speed(both)
    held = [then["again"][0] <= now["p50"] <= then["again"][1] for then, now in both.values()]
    alike = [then["again"][0] <= now["p50"] / speed <= then["again"][1] for then, now in both.values()]
    return {"times": len(both), "within": sum(held), "within, at one speed": sum(alike), "machine": speed}


def _both(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[tuple[str, str], tuple[Any, Any]]:
    before = {(row["name"], key): times for row in old["rows"] for key, times in row["ms"].items()}
    now = {(row["name"], key): times for row in new["rows"] for key, times in row["ms"].items()}
    return {key: (before[key], now[key]) for key in now if key in before}


def _speed(both: Mapping[tuple[str, str], tuple[Any, Any]]) -> float:
    """How many times as long all took in the second run, the median: that is the machine, and no program."""
    return float(
        np.exp(np.median([np.log(now["p50"] / then["p50"]) for then, now in both.values()] or [0.0]))
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each time that changed by more than chance and the machine, and how far the runs agree."""
    both = _both(old, new)
    found = agreement(old, new)
    speed = found["machine"]
    changed = changes([(then["rounds"], [ms / speed for ms in now["rounds"]]) for then, now in both.values()])
    lines = [
        f"{name}, {key}: {change.then:.3g} -> {change.now:.3g} ms, {change.times:.2f} times "
        f"({change.low:.2f} to {change.high:.2f})"
        for (name, key), change in zip(both, changed, strict=True)
        if change.differs
    ]
    return [
        f"the machine as a whole took {speed:.2f} times as long; what follows is beside that",
        *lines,
        f"{len(lines)} of {len(both)} times changed by more than chance",
        f"{found['within']} of {len(both)} are within the interval that the earlier run gave for another one",
        f"{found['within, at one speed']} of {len(both)} are, without what the machine as a whole did",
    ]
