"""Writes docs/peers.md from page.txt and benchmarks/results: `python -m benchmarks.peers.page`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import roofline
from benchmarks.peers.table import table
from mifuse.files import whole_file

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "peers.md"

RESULT = "[The result](../benchmarks/results/peers.json) has every percentile."
HOW = (
    "A time is the median of {rounds} rounds, each with new processes. Its interval says where the next "
    "run's falls: the range of the rounds, which asks for no distribution, widened by the drift that all "
    "peers show alike ({drift:.1f} % from run to run)."
)
EARLIER = (
    "It is of an earlier version of this benchmark: the processes of one round, and intervals of chance "
    "within a run, of which a second run had 69 of 112 times inside."
)


def about(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], quality: str) -> str:
    """What each peer does, its licence and size, and what others published."""
    lines = ["| | does | model | licence | published, or of our own |", "| --- | --- | ---: | --- | --- |"]
    sizes = {row["name"]: row.get("model_kb") for row in result["rows"]}
    for row in rows:
        size = f"{sizes[row['name']]:,.0f} kB" if sizes.get(row["name"]) else "-"
        told = quality if row["name"] == "mifuse int8" else row.get("published", "-")
        lines.append(f"| {row['name']} | {row['does']} | {size} | {row['licence']} | {told} |")
    return "\n".join(lines)


def page(results: Path = RESULTS) -> str:
    """The text of the page."""
    result = _read(results / "peers.json")
    cells = _read(results / "field.json")["cells"]
    own, new = (np.mean([cell[split]["student"][0] for cell in cells]) for split in ("adapt", "test"))
    machine, told = result["machine"], result["provenance"]
    rounds = {len(ms.get("rounds", ())) for row in result["rows"] for ms in row["ms"].values()}
    how = EARLIER
    if min(rounds) > 1:
        how = HOW.format(rounds=max(rounds), drift=100 * result.get("drift", 0.0))
    second = result.get("second")
    agree = "No second run was held against it yet." if min(rounds) > 1 else ""
    if second:
        agree = (
            f"A second run had {second['within']} of {second['times']} times within the first one's "
            f"intervals, with the machine as a whole {second['machine']:.2f} times as slow."
        )
    energy = "Energy cannot be read here: the system shows no RAPL counter (/sys/class/powercap)."
    spent = {row["name"]: row["mj"] for row in result["rows"] if "mj" in row}
    if spent:
        energy = "Energy of a call of 3 s, mJ: " + ", ".join(f"{name} {mj:.1f}" for name, mj in spent.items())
    limits = results / "roofline.json"
    text = Path(__file__).with_name("page.txt").read_text(encoding="utf-8")
    return text.format(
        table=table(result),
        machine=f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:g}",
        how=_item(RESULT, how, agree),
        date=told["date"],
        commit=told["commit"][:8],
        energy=_item(energy),
        about=about(
            result,
            _read(Path(__file__).with_name("peers.json")),
            f"UA {own:.1f} on the archive, {new:.1f} on new speakers, acted speech ([README](../README.md))",
        ),
        roofline=f"\n## How far from the limit\n\n{roofline.table(_read(limits))}\n"
        if limits.is_file()
        else "",
    )


def _item(*sentences: str) -> str:
    """Of a list, in lines that are short enough."""
    return textwrap.fill(" ".join(sentences), 118, initial_indent="- ", subsequent_indent="  ")


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def main() -> None:
    """Write the page."""
    with whole_file(PAGE) as part:
        part.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
