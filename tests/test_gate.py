"""The search for the layers that int8 may have: order, stop, failure. Real models are in test_export.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from mifuse_export.errors import ExportError
from mifuse_export.gate import Int8Choice, fit
from mifuse_export.parity import Quality

HARM = {"a": 0.1, "b": 3.0, "c": 0.2, "d": 1.5}  # points of accuracy that int8 in this layer costs


def search(harm: Mapping[str, float], max_drop: float) -> tuple[Int8Choice, list[list[str]]]:
    """The result, and the float layers of every attempt, for layers whose losses add up."""
    attempts: list[list[str]] = []

    def write(floats: Sequence[str]) -> None:
        attempts.append(list(floats))

    def measure() -> dict[str, Quality]:
        lost = sum(points for layer, points in harm.items() if layer not in attempts[-1])
        return {
            "onnxruntime": Quality(100, 100.0, 0.0, 0.0, 0.0),
            "openvino": Quality(
                100, 100.0, max_abs_dp=lost / 100, mean_abs_dp=lost / 100, expected_drop=lost
            ),
        }

    return fit(write, measure, list(harm), max_drop), attempts


def test_nothing_is_measured_layer_by_layer_when_all_of_them_hold() -> None:
    found, attempts = search(HARM, max_drop=5.0)
    assert attempts == [[]]
    assert found.layers == dict.fromkeys("abcd", "int8")
    assert found.provenance() == {"layers": found.layers, "harm": {}, "repairs": []}


def test_most_harmful_first_and_no_further_than_needed() -> None:
    found, attempts = search(HARM, max_drop=0.5)
    assert attempts[1:5] == [list("bcd"), list("acd"), list("abd"), list("abc")]  # each layer alone
    assert attempts[5:] == [["b"], ["b", "d"]]
    assert found.layers == {"a": "int8", "b": "fp32", "c": "int8", "d": "fp32"}
    assert found.harm == pytest.approx({layer: points / 100 for layer, points in HARM.items()})
    assert [repair.layer for repair in found.repairs] == ["b", "d"]
    assert found.repairs[0].reason.startswith("openvino: accuracy is expected to fall by 4.80 points")


def test_an_answer_that_is_no_number_is_the_worst() -> None:
    found, _ = search({"a": 1.0, "b": np.nan}, max_drop=2.0)
    assert found.layers == {"a": "int8", "b": "fp32"}
    assert "not finite" in found.repairs[0].reason


@pytest.mark.parametrize(
    ("harm", "tried"), [(HARM, "even with b, d, c in float"), ({"a": 9.0}, "points on 100")]
)
def test_when_nothing_holds_it_says_what_was_tried(harm: dict[str, float], tried: str) -> None:
    with pytest.raises(ExportError, match=rf"int8 on openvino loses too much.*{tried}.*; give more"):
        search(harm, max_drop=0.05)
