"""`mifuse draws`: look into a draws store, and move draws in and out as JSONL."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

_FILE = click.Path(path_type=Path)


@click.group(epilog="Example: mifuse draws info draws.db")
def draws() -> None:
    """Look into a draws store, and move draws in and out."""


@draws.command(epilog="Example: mifuse draws info draws.db")
@click.argument("path", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(path: Path, as_json: bool) -> None:
    """Show for each teacher in PATH (draws store or JSONL): counts, class prior, disagreement, warnings."""
    from mifuse.draws import summarise

    summaries = summarise(path)
    if as_json:
        rows = [
            dataclasses.asdict(one) | {"source": str(one.source), "warnings": one.warnings()}
            for one in summaries
        ]
        click.echo(json.dumps(rows))
        return
    for one in summaries:
        click.echo(f"{one.source}: {one.clips} clips, {one.draws} draws, mean MI {one.mean_mi:.4f} nats")
        click.echo(f"  {'':<10}{'prior':>8}{'predicted':>11}")
        for name, prior in one.prior.items():
            click.echo(f"  {name:<10}{prior:>8.1%}{one.predicted[name]:>11.1%}")
        for warning in one.warnings():
            click.echo(f"  warning: {warning}")


@draws.command(
    "import", epilog="Example: mifuse draws import lalm_draws.jsonl --manifest target.csv --store draws.db"
)
@click.argument("file", type=_FILE)
@click.option("--manifest", required=True, type=_FILE, help="Names the clips that FILE is about.")
@click.option("--store", "store_path", required=True, type=_FILE, help="Draws store to fill.")
def import_(file: Path, manifest: Path, store_path: Path) -> None:
    """Put the draws of the JSONL FILE into a store. What is there already stays as it is."""
    from mifuse.audio import AudioCache
    from mifuse.manifest import read_manifest
    from mifuse.teachers.jsonl import import_jsonl, read_jsonl
    from mifuse.teachers.store import DrawsStore

    lines, clips = read_jsonl(file), read_manifest(manifest, labels=None)
    with DrawsStore(store_path) as store:
        done = import_jsonl(store, lines, clips, AudioCache())
    click.echo(
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
    from mifuse.audio import AudioCache
    from mifuse.errors import DrawsError
    from mifuse.manifest import read_manifest
    from mifuse.teachers.base import choose_source
    from mifuse.teachers.jsonl import export_jsonl
    from mifuse.teachers.store import DrawsStore

    if output.exists():
        raise DrawsError(f"{output}: exists already: remove it or choose another name")
    clips = read_manifest(manifest, labels=None)
    with DrawsStore(store_path, read_only=True) as store:
        source = choose_source(store.sources(), teacher, str(store_path)) if teacher else None
        count = export_jsonl(store, output, clips, AudioCache(), source)
    click.echo(f"{count} draws written to {output}")
