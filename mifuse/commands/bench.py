"""`mifuse bench`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mifuse.commands.output import echo

if TYPE_CHECKING:
    from mifuse.exporting.bench import Latency
    from mifuse.exporting.timing import Change


def _lengths(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    try:
        lengths = [float(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r}: give seconds separated by commas, as 1,3,10") from None
    if not all(0.1 <= length <= 600 for length in lengths):
        raise click.BadParameter(f"{value!r}: give lengths from 0.1 to 600 seconds")
    return lengths


@click.command(
    epilog="Example: mifuse bench bundle/ --json > old.json, later mifuse bench bundle/ --compare old.json"
)
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--seconds", default="1,3,10", show_default=True, callback=_lengths, help="Lengths of audio, with commas."
)
@click.option(
    "--calls",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    help="Timed calls of each precision and length.",
)
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "openvino"]),
    default="onnxruntime",
    show_default=True,
    help="Engine to run it with.",
)
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1), help="Threads that one call may use."
)
@click.option(
    "--compare",
    "old",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What an earlier run printed with --json: say what differs by more than chance.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the times as JSON.")
def bench(
    *,
    bundle: Path,
    seconds: list[float],
    calls: int,
    engine: str,
    threads: int,
    old: Path | None,
    as_json: bool,
) -> None:
    """Measure the latency of BUNDLE on this machine: Recognizer.predict, samples to scores, on a voice.

    Beside it the same call that does not ask the gate of speech, and the model's graph alone, which holds
    that gate (in bundles of an earlier export it does not). Calls take turns, in rounds that load the models
    anew; "again" is where the p50 of 19 of 20 other runs is expected. A ratio is the median over neighbouring
    calls: of predict to the graph, and of predict to fp32.

    --compare holds predict and the graph against an earlier run, by the medians of the rounds: of all lines
    together, the chance that any calls equal times different is 5 %.
    """
    from mifuse.exporting import against
    from mifuse.exporting import bench as benchmark

    before = against.earlier(old) if old else None
    where = benchmark.machine()
    rounds = min(benchmark.ROUNDS, calls)
    with click.progressbar(length=rounds, label="bench", file=sys.stderr) as bar:
        rows = benchmark.bench(
            bundle,
            seconds=seconds,
            calls=calls,
            engine=engine,
            threads=threads,
            progress=lambda: bar.update(1),
        )
    document = {
        "bundle": str(bundle),
        "engine": engine,
        "threads": threads,
        "machine": dataclasses.asdict(where),
        "latencies_ms": [dataclasses.asdict(row) for row in rows],
    }
    changed = against.against(before, document) if before else []
    if as_json:
        if before:
            document["compared"] = [
                {"seconds": length, "precision": name, "of": kind, **dataclasses.asdict(change)}
                for length, name, kind, change in changed
            ]
            document["unlike"] = against.unlike(before, document)
        echo(json.dumps(document, indent=2))
        return
    versions = ", ".join(f"{name} {version}" for name, version in where.versions.items())
    load = "" if where.load is None else f", load {where.load}"
    echo(f"{where.cpu}, {where.cores} cores{load}, {where.system}; {versions}")
    echo(f"{bundle} on {engine}, {threads} thread{'s' if threads > 1 else ''}, {calls} calls each")
    _show(rows)
    if before:
        _compare(changed, against.unlike(before, document))


def _show(rows: Sequence[Latency]) -> None:
    heads = ("p50 ms", "p90 ms", "p99 ms", "no gate", "graph", "/ graph", "/ fp32")
    echo(f"{'audio':>7}{'precision':>11}" + "".join(f"{head:>9}" for head in heads) + "  again")
    for row in rows:
        ratio = " " * 9 if row.ratio is None else f"{row.ratio:9.2f}"
        times = (row.p50, row.p90, row.p99, row.ungated, row.graph, row.over_graph)
        again = f"  {row.again[0]:.2f} to {row.again[1]:.2f}" if row.again else ""
        cells = "".join(f"{value:9.2f}" for value in times)
        echo(f"{row.seconds:>5g} s{row.precision:>11}{cells}{ratio}{again}")


def _compare(changed: Sequence[tuple[float, str, str, Change]], unlike: Sequence[str]) -> None:
    echo(f"\n{'audio':>7}{'precision':>11}{'of':>9}{'then':>9}{'now':>9}{'times':>9}  95 %")
    for length, precision, kind, change in changed:
        words = "no difference" if not change.differs else "slower" if change.times > 1 else "faster"
        cells = (
            f"{change.then:9.2f}{change.now:9.2f}{change.times:9.2f}  {change.low:.2f} to {change.high:.2f}"
        )
        echo(f"{length:>5g} s{precision:>11}{kind:>9}{cells}  {words}")
    echo(f"{sum(change.differs for *_, change in changed)} of {len(changed)} differ by more than chance")
    for line in unlike:
        echo(f"not alike: {line}")
