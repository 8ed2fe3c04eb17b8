"""`benchmarks.compression`: means, table and picture, and that the page shows what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import charts
from benchmarks.compression import means, table

ROOT = Path(__file__).resolve().parent.parent


def point(transfer: str, size: str, start: str, ua: float) -> dict:
    by_split = {"adapt": ua + 10, "test": ua}
    kb = {"w2": 35.0, "xs": 57.0, "s": 148.0}[size]
    times = dict.fromkeys(("fp32_p50_ms", "int8_p50_ms"), kb / 200)
    found = {"transfer": transfer, "size": size, "start": start, "fit_cpu_s": 40.0, "int8_kb": kb}
    return found | {"fp32_kb": 4 * kb, "fp32": by_split, "int8": by_split} | times


POINTS = [
    point(transfer, *rest)
    for transfer, gain in (("a>b", 0.0), ("b>a", 4.0))
    for rest in (
        ("w2", "pruned", 40 + gain),
        ("s", "student", 60 + gain),
        ("xs", "random", 50 + gain),
        ("xs", "pruned", 55 + gain),
    )
]


def test_means_are_over_the_transfers_widest_first() -> None:
    found = means([*POINTS, point("a>b", "w2", "random", 99)])
    assert [(p["size"], p["start"]) for p in found] == [
        ("s", "student"),
        ("xs", "pruned"),
        ("xs", "random"),
        ("w2", "pruned"),
    ]
    assert [p["int8"]["test"] for p in found] == [62, 57, 52, 42]
    assert {p["transfers"] for p in found} == {2}
    lines = table(found).splitlines()
    assert lines[2] == "| s | the student itself | 148 | 592 | 0.74 | 0.74 | 72.0 (72.0) | 62.0 (62.0) |"
    assert len(lines) == 6


def test_picture() -> None:
    picture = charts.compression(means(POINTS))
    assert picture.startswith("<svg")
    assert all(f">{text}<" in picture for text in ("w2", "xs", "s", "int8 file, kB", "UA, %"))


def test_the_page_shows_what_was_measured() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "compression.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "compression.md").read_text(encoding="utf-8")
    assert document["mean"] == means(document["points"])
    assert table(document["mean"]) in page
    assert document["machine"] in page
    assert (ROOT / "docs" / "pictures" / "compression.svg").read_text(encoding="utf-8").startswith("<svg")
