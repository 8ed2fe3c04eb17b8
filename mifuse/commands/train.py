"""`mifuse train`."""

from __future__ import annotations

import json
import time
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
    import dataclasses

    from mifuse.audio import AudioCache
    from mifuse.classifier import TrainConfig, train_classifier
    from mifuse.commands.progress import epochs
    from mifuse.config import override
    from mifuse.manifest import read_manifest
    from mifuse.processes import is_main_process
    from mifuse.run import close_run, open_run

    config = override(TrainConfig(size=size), settings)
    clips = read_manifest(manifest).clips
    started = time.perf_counter()
    with open_run(out, force=force) as partial:
        with epochs("train", config.fit.steps) as progress:
            trained = train_classifier(clips, AudioCache(), config=config, seed=seed, progress=progress)
        record = {
            "kind": "train",
            "config": dataclasses.asdict(config),
            "seed": seed,
            "source": str(manifest.resolve()),
            "history": trained.history,
            "validation_ua": trained.validation_ua,
            "seconds": time.perf_counter() - started,
        }
        close_run(partial, out, trained.model, record)
    if not is_main_process():
        return
    if as_json:
        summary = {"out": str(out), "validation_ua": trained.validation_ua, "epochs": len(trained.history)}
        click.echo(json.dumps(summary))
    else:
        click.echo(
            f"{out}: {trained.validation_ua:.1f} % UA on held-out speakers, {len(trained.history)} epochs"
        )
