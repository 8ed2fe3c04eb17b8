"""`mifuse bench`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

from mifuse.commands.output import echo


def _lengths(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    try:
        lengths = [float(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r}: give seconds separated by commas, as 1,3,10") from None
    if not all(0.1 <= length <= 600 for length in lengths):
        raise click.BadParameter(f"{value!r}: give lengths from 0.1 to 600 seconds")
    return lengths


@click.command(epilog="Example: mifuse bench bundle/ --seconds 1,3,10")
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
@click.option("--json", "as_json", is_flag=True, help="Print the times as JSON.")
def bench(
    *, bundle: Path, seconds: list[float], calls: int, engine: str, threads: int, as_json: bool
) -> None:
    """Measure the latency of BUNDLE on this machine: Recognizer.predict, samples to scores, on a voice.

    Beside it the same call without the gate of speech, and the model's graph alone. Calls take turns; a ratio
    is the median over neighbouring calls: of predict without the gate to the graph, and of predict to fp32.
    """
    from mifuse.exporting import bench as benchmark

    where = benchmark.machine()
    with click.progressbar(length=len(seconds), label="bench", file=sys.stderr) as bar:
        rows = benchmark.bench(
            bundle,
            seconds=seconds,
            calls=calls,
            engine=engine,
            threads=threads,
            progress=lambda: bar.update(1),
        )
    if as_json:
        document = {
            "bundle": str(bundle),
            "engine": engine,
            "threads": threads,
            "machine": dataclasses.asdict(where),
            "latencies_ms": [dataclasses.asdict(row) for row in rows],
        }
        echo(json.dumps(document, indent=2))
        return
    versions = ", ".join(f"{name} {version}" for name, version in where.versions.items())
    load = "" if where.load is None else f", load {where.load}"
    echo(f"{where.cpu}, {where.cores} cores{load}, {where.system}; {versions}")
    echo(f"{bundle} on {engine}, {threads} thread{'s' if threads > 1 else ''}, {calls} calls each")
    heads = ("p50 ms", "p90 ms", "p99 ms", "no gate", "graph", "/ graph", "/ fp32")
    echo(f"{'audio':>7}{'precision':>11}" + "".join(f"{head:>9}" for head in heads))
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:9.2f}"
        times = (row.p50, row.p90, row.p99, row.ungated, row.graph, row.over_graph)
        echo(f"{row.seconds:>5g} s{row.precision:>11}" + "".join(f"{value:9.2f}" for value in times) + ratio)
