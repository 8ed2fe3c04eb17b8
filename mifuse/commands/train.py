"""`mifuse train`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mifuse.clips.labels import Naming
from mifuse.commands.dimensions import dimension_options
from mifuse.commands.encoders import encoder_option
from mifuse.commands.labels import naming_options
from mifuse.commands.output import echo


@click.command(epilog="Example: mifuse train source.csv -o source/")
@click.argument("manifest", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the classifier, new."
)
@encoder_option("A frozen WavLM, HuBERT, wav2vec2 or Whisper; its head is trained.")
@naming_options("The labels to tell apart, or none.  [default: those of the manifest]", none=True)
@dimension_options("Columns of numbers to learn beside the labels, or alone.")
@click.option("--size", type=click.Choice(["xs", "s", "m"]), help="Of the student.  [default: s]")
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
    encoder: str | None,
    naming: Naming,
    dimensions: dict[str, tuple[float, float]],
    size: str | None,
    seed: int,
    settings: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Train a source classifier on the labelled clips of MANIFEST.

    The epoch that does best on held-out speakers is kept. An --encoder, a hub name or a folder after hf:,
    is run once for each clip; its hidden states are kept in the cache, and a linear head is fitted to those
    of the middle layers, each clip's within its speaker's; the penalty is chosen on speakers left out.
    """
    if encoder is not None and size is not None:
        raise click.UsageError("--size is of a student: leave it out beside --encoder")
    if encoder is not None and dimensions:
        raise click.UsageError("--targets are learnt by a student: leave it out beside --encoder")
    from mifuse.commands.progress import epochs
    from mifuse.config import override
    from mifuse.models.classifier import TrainConfig, train_manifest
    from mifuse.models.head import PENALTIES
    from mifuse.runs.processes import is_main_process

    config = override(TrainConfig(size=size or "s"), settings)
    with epochs("train", len(PENALTIES) if encoder else config.fit.steps) as progress:
        record = train_manifest(
            manifest, out,
            config=config, seed=seed, encoder=encoder, naming=naming, dimensions=dimensions, force=force,
            progress=progress,
        )  # fmt: skip
    ua, ccc, count = record["validation_ua"], record["validation_ccc"], len(record["history"])
    if not is_main_process():
        return
    if as_json:
        found = {key: record[key] for key in ("validation_ua", "validation_ccc") if record[key] is not None}
        echo(json.dumps({"out": str(out), **found, "epochs": count}))
    else:
        scores = [*([] if ua is None else [f"{ua:.1f} % UA"]), *([] if ccc is None else [f"CCC {ccc:.3f}"])]
        of = "penalties" if encoder else "epochs"
        echo(f"{out}: {', '.join(scores)} on held-out speakers, {count} {of}")
