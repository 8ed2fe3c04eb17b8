"""`mifuse demo`."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mifuse.commands.output import echo

if TYPE_CHECKING:
    from mifuse.demo.demo import Inputs, Row, Tick

MANIFEST = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog="Example: mifuse demo -o demo/")
@click.option(
    "-o", "--out", default=Path("demo"), type=click.Path(path_type=Path), show_default=True,
    help="Folder to write to; that of an earlier demo is written anew.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="A quarter of the data and of the training: half a minute.")
@click.option("--source", type=MANIFEST, help="Labelled manifest to train on, instead of synthetic speech.")
@click.option("--target", type=MANIFEST, help="Manifest to adapt to; labels, if any, are for the table.")
@click.option("--draws", type=MANIFEST, help="Draws of a LALM for every clip of the target, JSONL.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def demo(
    *, out: Path, quick: bool, source: Path | None, target: Path | None, draws: Path | None, as_json: bool
) -> None:
    """Run the whole way: train, label, adapt, export, evaluate, bench, report.

    Without options on two synthetic domains and with a stand-in LALM, in a few minutes on two cores.
    """
    inputs = _inputs(source, target, draws)
    from mifuse.demo.demo import QUICK, DemoConfig, run_demo
    from mifuse.runs.report import read_run

    started = time.perf_counter()
    rows, report = run_demo(out, inputs, QUICK if quick else DemoConfig(), _stage)
    name = inputs.lalm if inputs else "stand-in LALM"
    if as_json:
        table = [dataclasses.asdict(row) for row in rows]
        echo(json.dumps({"synthetic": inputs is None, "lalm": name, "rows": table, "report": str(report)}))
        return
    echo()
    echo(table_text(rows, name))
    echo()
    if verdict := read_run(out).verdict:
        echo(f"Verdict of the adaptation, without labels: {verdict['advice']}")
    if inputs is None:
        echo("Synthetic speech and a stand-in LALM: the numbers say nothing about real speech.")
    echo("Latency: 3 s of audio through Recognizer.predict on one thread of this machine.")
    echo(f"{time.perf_counter() - started:.0f} s. Report: {report}")


def _inputs(source: Path | None, target: Path | None, draws: Path | None) -> Inputs | None:
    given = [source, target, draws]
    if not any(given):
        return None
    if source is None or target is None or draws is None:
        raise click.UsageError("give all of --source, --target and --draws, or none for synthetic speech")
    from mifuse.demo.demo import given_inputs

    return given_inputs(source, target, draws)


@contextmanager
def _stage(name: str, length: int) -> Iterator[Tick]:
    started = time.perf_counter()
    if sys.stderr.isatty() and length > 1:
        with click.progressbar(length=length, label=f"{name:<11}", file=sys.stderr) as bar:
            yield bar.update
        return
    yield lambda _: None
    echo(f"{name:<11} {time.perf_counter() - started:6.1f} s", err=True)


def table_text(rows: list[Row], lalm: str) -> str:
    """The table for a terminal: words to the left, numbers to the right."""
    from mifuse.demo.demo import table_row

    lines = [table_row(row, lalm) for row in rows]
    columns = [[name, *(line[name] for line in lines)] for name in lines[0]]
    widths = [max(map(len, column)) for column in columns]
    text = []
    for cells in zip(*columns, strict=True):
        words = [cell.ljust(width) for cell, width in zip(cells[:2], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
        text.append("  ".join([*words, *numbers]))
    return "\n".join(text)
