"""`mifuse train`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(epilog="Example: mifuse train source.csv -o source/")
@click.argument("manifest", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the classifier, new."
)
@click.option("--size", type=click.Choice(["xs", "s", "m"]), default="s", show_default=True, help="Size.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, sampling and augmentation.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any setting, as in fit.steps=600."
)
@click.option("--force", is_flag=True, help="Replace the folder that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    *,
    manifest: Path,
    out: Path,
    size: str,
    seed: int,
    settings: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Train a source classifier on the labelled clips of MANIFEST.

    The epoch that does best on held-out speakers is kept.
    """
    from mifuse.classifier import TrainConfig, train_manifest
    from mifuse.commands.progress import epochs
    from mifuse.config import override
    from mifuse.processes import is_main_process

    config = override(TrainConfig(size=size), settings)
    with epochs("train", config.fit.steps) as progress:
        record = train_manifest(manifest, out, config=config, seed=seed, force=force, progress=progress)
    ua, count = record["validation_ua"], len(record["history"])
    if not is_main_process():
        return
    if as_json:
        click.echo(json.dumps({"out": str(out), "validation_ua": ua, "epochs": count}))
    else:
        click.echo(f"{out}: {ua:.1f} % UA on held-out speakers, {count} epochs")
