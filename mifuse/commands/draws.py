"""`mifuse draws`: look into a draws store, and move draws in and out as JSONL."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from mifuse.commands.labels import naming_options
from mifuse.commands.output import echo

if TYPE_CHECKING:
    from mifuse.clips.labels import Naming
    from mifuse.teachers.base import Source
    from mifuse.teachers.draws import Summary
    from mifuse.teachers.draws_quality import Cost, Quality

_FILE = click.Path(path_type=Path)


@click.group(epilog="Example: mifuse draws info draws.db")
def draws() -> None:
    """Look into a draws store, and move draws in and out."""


@draws.command(epilog="Example: mifuse draws info draws.db --manifest target.csv --split test")
@click.argument("path", type=_FILE)
@click.option("--manifest", type=_FILE, help="Score the draws against its labels; for evaluation only.")
@click.option("--split", help="Rows of the manifest to score: adapt, test or all.")
@click.option("--teacher", help="Whose draws to score: teacher, teacher/model or teacher/model@prompt.")
@naming_options("What to score.  [default: those of the draws]")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(
    *,
    path: Path,
    manifest: Path | None,
    split: str | None,
    teacher: str | None,
    naming: Naming,
    as_json: bool,
) -> None:
    """Show for each teacher in PATH (draws store or JSONL): counts, cost, prior, numbers, disagreement,
    warnings.

    With --manifest also UA, ECE and how often the surest and the least sure fifths of the clips are right.
    """
    from mifuse.teachers.draws import summarise
    from mifuse.teachers.draws_quality import Cost, costs, quality
    from mifuse.teachers.numbers import summarise_numbers

    paid, summaries = costs(path), {one.source: one for one in summarise(path)}
    numbers = {source: summarise_numbers(path, source) for source in summaries}
    sources = sorted({*paid, *summaries})
    scored = quality(path, manifest, teacher, split, naming) if manifest else None
    if as_json:
        rows: list[dict[str, Any]] = []
        for source in sources:
            summary, cost = summaries.get(source), paid.get(source, Cost())
            row = dataclasses.asdict(summary) if summary else {}
            warnings = (summary.warnings() if summary else []) + cost.warnings()
            rows.append(
                row | dataclasses.asdict(cost) | {"draws": cost.draws or row.get("draws", 0)}
                | {"source": str(source), "dimensions": numbers.get(source, {}), "warnings": warnings}
            )  # fmt: skip
        echo(json.dumps([*rows, *([dataclasses.asdict(scored)] if scored else [])]))
        return
    if not sources:
        echo(f"{path}: no draws")
    for source in sources:
        _show(source, summaries.get(source), paid.get(source), numbers.get(source, {}))
    if scored:
        _show_quality(scored)


def _show(
    source: Source,
    summary: Summary | None,
    cost: Cost | None,
    numbers: Mapping[str, Mapping[str, float]],
) -> None:
    if summary:
        counts = f"{summary.clips} clips, {summary.draws} draws"
        echo(f"{source}: {counts}" + (f", mean MI {summary.mean_mi:.4f} nats" if summary.prior else ""))
        if summary.prior:
            echo(f"  {'':<10}{'prior':>8}{'predicted':>11}")
        for name, prior in summary.prior.items():
            echo(f"  {name:<10}{prior:>8.1%}{summary.predicted[name]:>11.1%}")
        for name, one in numbers.items():
            echo(
                f"  {name}: {one['draws']} draws from {one['lowest']:g} to {one['highest']:g}, "
                f"mean {one['mean']:.3g}; draws of a clip differ by {one['deviation']:.2g}"
            )
    else:
        echo(f"{source}: no draws")
    if cost and (cost.usd or cost.unsettled_usd or cost.invalid):
        unsettled = f", up to ${cost.unsettled_usd:.4f} for requests without an answer" * (
            cost.unsettled_usd > 0
        )
        echo(f"  cost ${cost.usd:.4f}{unsettled}; {cost.invalid} invalid answers")
        for problem, count in list(cost.problems.items())[:3]:
            echo(f"    {count} x {problem}")
    for warning in (summary.warnings() if summary else []) + (cost.warnings() if cost else []):
        echo(f"  warning: {warning}")


def _show_quality(scored: Quality) -> None:
    from mifuse.commands.evaluate import summary

    echo(f"against {scored.scores.n} labels, for evaluation only:")
    echo(f"  {summary(scored.scores)}")
    echo(f"  {'mean MI of a fifth, nats':<26}{'right':>8}")
    for doubt, right in scored.curve:
        echo(f"  {doubt:<26.4f}{right:>6.1f} %")


@draws.command(
    "import", epilog="Example: mifuse draws import lalm_draws.jsonl --manifest target.csv --store draws.db"
)
@click.argument("file", type=_FILE)
@click.option("--manifest", required=True, type=_FILE, help="Names the clips that FILE is about.")
@click.option("--store", "store_path", required=True, type=_FILE, help="Draws store to fill.")
def import_(file: Path, manifest: Path, store_path: Path) -> None:
    """Put the draws of the JSONL FILE into a store. What is there already stays as it is."""
    from mifuse.clips.audio import AudioCache
    from mifuse.clips.manifest import read_manifest
    from mifuse.teachers.jsonl import import_jsonl, read_jsonl
    from mifuse.teachers.store.database import DrawsStore

    lines, clips = read_jsonl(file), read_manifest(manifest, labels=None)
    with DrawsStore(store_path) as store:
        done = import_jsonl(store, lines, clips, AudioCache())
    echo(
        f"{done.added} draws added, {done.present} were there ({done.differing} with other probabilities: "
        f"the stored ones stay), {done.unknown} of clips that are not in {manifest}"
    )


@draws.command(epilog="Example: mifuse draws export draws.db --manifest target.csv -o draws.jsonl")
@click.argument("store_path", metavar="STORE", type=_FILE)
@click.option("--manifest", required=True, type=_FILE, help="Gives the clips their paths.")
@click.option("--teacher", help="Only this one: teacher, teacher/model or teacher/model@prompt.")
@click.option("-o", "--output", required=True, type=_FILE, help="JSONL file to write; must not exist.")
def export(store_path: Path, manifest: Path, teacher: str | None, output: Path) -> None:
    """Write the draws of a store as JSONL."""
    from mifuse.clips.audio import AudioCache
    from mifuse.clips.manifest import read_manifest
    from mifuse.errors import DrawsError
    from mifuse.teachers.base import choose_source
    from mifuse.teachers.jsonl import export_jsonl
    from mifuse.teachers.store.database import DrawsStore

    if output.exists():
        raise DrawsError(f"{output}: exists already: remove it or choose another name")
    clips = read_manifest(manifest, labels=None)
    with DrawsStore(store_path, read_only=True) as store:
        source = choose_source(store.sources(), teacher, str(store_path)) if teacher else None
        count = export_jsonl(store, output, clips, AudioCache(), source)
    echo(f"{count} draws written to {output}")


@draws.command(epilog="Example: mifuse draws prune draws.db --invalid")
@click.argument("store_path", metavar="STORE", type=_FILE)
@click.option("--teacher", help="Only this one: teacher, teacher/model or teacher/model@prompt.")
@click.option(
    "--invalid", "what", flag_value="invalid", help="Invalid answers: their draws are asked for anew."
)
@click.option("--draws", "what", flag_value="draws", help="Draws of --teacher; it must be named.")
@click.option(
    "--unsettled", "what", flag_value="reservations",
    help="What is set aside for requests without an answer, once the bill has shown that they are not on it.",
)  # fmt: skip
def prune(store_path: Path, teacher: str | None, what: str | None) -> None:
    """Delete rows of a store. What they cost stays counted, but for --unsettled."""
    from mifuse.teachers.base import choose_source
    from mifuse.teachers.draws_quality import costs
    from mifuse.teachers.store.database import DrawsStore

    if what is None or (what == "draws" and teacher is None):
        raise click.UsageError("say what to delete: --invalid, --unsettled, or --draws with --teacher")
    known = costs(store_path)
    source = choose_source(list(known), teacher, str(store_path)) if teacher else None
    with DrawsStore(store_path) as store:
        count = store.prune(source, cast(Any, what))
    echo(f"{count} {what} deleted from {store_path}")
