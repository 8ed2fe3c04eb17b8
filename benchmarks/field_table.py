"""What the finished cells of `benchmarks.field` say: scores of each source, and of the verdict."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mifuse.fusion.verdict import STUDENT
from mifuse.runs.metrics import unweighted_accuracy

if TYPE_CHECKING:
    from benchmarks.field import Cell

Array = NDArray[np.float64]
Row = dict[str, Any]
LOST = 2.0  # points of UA below the best other source from which the student has lost
SOURCES = ("LALM", "classifier", "average", "labels", "student")


def document(done: Iterable[Cell]) -> dict[str, Any]:
    """Every cell's scores, and the means of each archive."""
    rows = [_row(cell) for cell in done]
    return {"cells": rows, "verdict": _verdicts(rows)}


def _row(cell: Cell) -> Row:
    with np.load(cell.file, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    verdict = json.loads(str(found.pop("verdict"))) if "verdict" in found else None
    return {
        "transfer": str(cell.transfer),
        "draws": cell.draws,
        "archive": cell.archive,
        "method": cell.how,
        "clips": len(found["truth"]),
        "adapt": _scores(found, "", found["truth"]),
        "test": _scores(found, "test ", found["test_truth"]),
        "known": _scores(found, "known ", found["test_truth"]),
        "verdict": verdict,
    }


def _scores(found: Mapping[str, Any], prefix: str, truth: Any) -> dict[str, tuple[float, float]]:
    """Source -> UA and accuracy, %."""
    probs = {who: found[prefix + who] for who in SOURCES if prefix + who in found}
    if "LALM" in probs and "classifier" in probs:
        probs["average"] = (probs["LALM"] + probs["classifier"]) / 2
    return {
        who: (
            unweighted_accuracy(truth, p.argmax(axis=1), p.shape[1]),
            float(100 * (p.argmax(axis=1) == truth).mean()),
        )
        for who, p in probs.items()
    }


def _verdicts(rows: Sequence[Row]) -> dict[str, Any]:
    """How right the verdicts were: error of the expected UA, choice of the best source, false deployments."""
    errors: dict[str, list[float]] = {}
    right, costs, wrong, judged = 0, [], 0, 0
    for row in rows:
        verdict = row["verdict"]
        if verdict is None:
            continue
        for part, split in (("archive", "adapt"), ("new_voices", "test")):
            for who, one in verdict[part].items():
                errors.setdefault(f"{split} {who}", []).append(abs(one["ua"] - row[split][who][0]))
        actual = {who: row["test"][who][0] for who in row["test"] if who != "labels"}
        best = max(actual.values())
        judged += 1
        costs.append(best - actual[verdict["best"]])
        right += costs[-1] <= 1
        others = max(score for who, score in actual.items() if who != STUDENT)
        wrong += verdict["deploy"] and actual[STUDENT] < others - LOST
    if not judged:
        return {}
    return {
        "cells": judged,
        "mean error of expected UA": {who: float(np.mean(one)) for who, one in errors.items()},
        "best source chosen, %": 100 * right / judged,
        "cost of the choice, mean": float(np.mean(costs)),
        "lost and deployed, %": 100 * wrong / judged,
    }


def markdown(found: Mapping[str, Any]) -> str:
    """Means of each archive and method, then the verdicts."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in found["cells"]:
        groups.setdefault((row["archive"], row["method"]), []).append(row)
    head = ["archive", "method", "cells", "LALM", "classifier", "average", "labels", "student"]
    head += ["LALM, new", "average, new", "student, new", "student, known"]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for (archive, method), rows in groups.items():
        cells = [archive, method, str(len(rows))]
        cells += [_mean(rows, "adapt", who) for who in SOURCES]
        cells += [_mean(rows, "test", who) for who in ("LALM", "average", "student")]
        lines.append("| " + " | ".join([*cells, _mean(rows, "known", "student")]) + " |")
    verdict = [f"{name}: {_shown(value)}" for name, value in found["verdict"].items()]
    return "\n".join(["UA / accuracy, %, mean of the cells", "", *lines, "", *verdict])


def _mean(rows: Sequence[Row], split: str, who: str) -> str:
    """UA / accuracy of the rows that have both."""
    scores = [row[split][who] for row in rows if who in row[split]]
    return " / ".join(f"{value:.1f}" for value in np.mean(scores, axis=0)) if scores else ""


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)
