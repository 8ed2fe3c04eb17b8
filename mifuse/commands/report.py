"""`mifuse report`."""

from __future__ import annotations

from pathlib import Path

import click

from mifuse.clips.labels import Naming
from mifuse.commands.labels import naming_options
from mifuse.commands.output import echo


@click.command(epilog="Example: mifuse report student/ -o student.html")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="[default: RUN/report.html]"
)
@click.option(
    "--target",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Manifest with the labels to compare with. [default: the manifest of the run, when it has labels]",
)
@naming_options()
def report(*, run: Path, out: Path | None, target: Path | None, naming: Naming) -> None:
    """Write the HTML report of a run: one file, pictures inside.

    RUN is a folder that train, adapt or demo wrote.
    """
    from mifuse.clips.manifest import read_manifest
    from mifuse.runs.report import read_run, write_report

    manifest = read_manifest(target, naming.over(read_run(run).labels)) if target else None
    echo(write_report(run, out, manifest))
