"""Budgets of an export: which are refused, and that an estimate is what the export then weighs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mifuse.models.student import Student
from mifuse_export import Budget, ExportConfig, ExportError, OverBudgetError, export_bundle
from mifuse_export.budget import Cost, estimate
from tests.bundles import speech


@pytest.mark.parametrize("bound", [0, -1.0, math.nan, -math.inf])
def test_budgets_that_are_none(bound: float) -> None:
    with pytest.raises(ExportError, match="it must be above 0"):
        Budget(kb=bound)
    with pytest.raises(ExportError, match=r"a budget of .* ms: it must be above 0"):
        Budget(ms=bound)


def test_both_bounds_count() -> None:
    budget = Budget(kb=100, ms=0.5)
    assert budget.holds(Cost(100, 0.5))
    assert not budget.holds(Cost(100.1, 0.1)) and not budget.holds(Cost(1, 0.51))
    assert Budget(kb=100).holds(Cost(100, 1e9)) and Budget(ms=1).holds(Cost(1e9, 1))
    assert (str(budget), str(Budget(ms=1))) == ("100 kB and 0.5 ms", "1 ms")


def test_an_export_is_what_its_estimate_said(tmp_path: Path) -> None:
    student, clips = Student(size="w1"), [speech(1.0, seed=i) for i in range(6)]
    cost = estimate(student, clips, labels=student.labels)
    assert cost.ms > 0
    config = ExportConfig(budget=Budget(kb=1), max_drop=100.0)
    assert config.quantised and not config.int8
    with pytest.raises(OverBudgetError, match="the int8 model costs") as error:
        export_bundle(student, tmp_path / "out", config, labels=student.labels, calibration=clips)
    assert float(str(error.value).split("costs ")[1].split()[0]) == pytest.approx(cost.kb, rel=0.02)
    assert not list(tmp_path.iterdir())
