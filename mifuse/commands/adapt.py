"""`mifuse adapt`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mifuse.clips.labels import Naming
from mifuse.commands.dimensions import dimension_options
from mifuse.commands.encoders import encoder_option
from mifuse.commands.labels import naming_options
from mifuse.commands.output import echo

if TYPE_CHECKING:
    from mifuse.fusion.recipes import AdaptConfig


@click.command(
    epilog="Example: mifuse adapt --source source/ --target target.csv --draws draws.db -o student/"
)
@click.option("--source", metavar="FOLDER|hf:NAME", help="The classifier; without one the LALMs alone teach.")
@click.option(
    "--from",
    "earlier",
    metavar="FOLDER",
    help="Instead of --source: a student to adapt once more, which keeps what it has learnt.",
)
@click.option("--target", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Manifest.")
@click.option(
    "--draws",
    required=True,
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Store or JSONL; once for each LALM.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    help="Whose draws, when the store holds those of several; once for each that is wanted.",
)
@naming_options(
    "Of the student, without a --source, or of hf:NAME; or none.  [default: those of the draws]", none=True
)
@dimension_options("Numbers to teach, too, or alone, from draws and source.  [default: the source's]")
@click.option(
    "--shares",
    metavar="EMOTION=SHARE,…",
    help="How often each emotion occurs, as in neutral=.7,angry=.1; the rest is spread over the others.",
)
@click.option(
    "--check",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Random check set with labels, from `mifuse choose --random`: it measures and is not learnt from.",
)
@click.option(
    "--labelled",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Manifest of a few target clips with labels that may be used; 5 a class help much.",
)
@encoder_option(
    "A frozen WavLM, HuBERT, wav2vec2 or Whisper: labels are held against its states of the clips, too."
)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the student, new."
)
@click.option(
    "--recipe",
    type=click.Choice(["default", "paper"]),
    default="default",
    show_default=True,
    help="`paper` is the published formula and nothing else.",
)
@click.option("--size", type=click.Choice(["xs", "s", "m"]), help="Of a new student.  [default: s]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, sampling and augmentation.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any setting, as in fit.steps=600."
)
@click.option("--resume", is_flag=True, help="Continue an interrupted run with the same settings.")
@click.option("--force", is_flag=True, help="Replace the folder that is there.")
@click.option("--tensorboard", type=click.Path(file_okay=False, path_type=Path), help="Folder for its logs.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def adapt(
    *,
    source: str | None,
    earlier: str | None,
    target: Path,
    draws: tuple[Path, ...],
    teachers: tuple[str, ...],
    naming: Naming,
    dimensions: dict[str, tuple[float, float]],
    shares: str | None,
    check: Path | None,
    labelled: Path | None,
    encoder: str | None,
    out: Path,
    recipe: str,
    size: str | None,
    seed: int,
    settings: tuple[str, ...],
    resume: bool,
    force: bool,
    tensorboard: Path | None,
    as_json: bool,
) -> None:
    """Adapt a student to the clips of a manifest, from draws of a LALM and a classifier; no labels are read.

    Only rows of split `adapt` are used where the manifest has that column. Under `accelerate launch`
    the work is shared between processes (on CPUs, too, it wants --multi_gpu: with --cpu it starts one
    process alone). A killed run is continued with --resume.

    With --from, the earlier student stands in for the classifier, and its answers to the new clips are learnt
    beside the labels, so that what it knows is not forgotten; --set keep=WEIGHT says how much they count.
    """
    if source is not None and earlier is not None:
        raise click.UsageError("give a classifier as --source, or a student to adapt once more as --from")
    if earlier is not None and size is not None:
        raise click.UsageError("--size is of a new student: leave it out beside --from")
    from mifuse.adapt_files import AdaptInputs, adapt_manifest
    from mifuse.commands.progress import epochs
    from mifuse.config import override
    from mifuse.fusion.recipes import KEEP, RECIPES
    from mifuse.runs.processes import is_main_process

    start = f"size={size or 's'}" if earlier is None else f"keep={KEEP}"
    config = override(RECIPES[recipe], [start, *settings])
    if not is_main_process():
        tensorboard = None
    given = (source or earlier, target, draws, teachers, labelled, check, encoder, shares, naming, dimensions)
    inputs = AdaptInputs(*given)
    with epochs("adapt", config.steps) as progress:
        record = adapt_manifest(
            inputs,
            out,
            config=config,
            seed=seed,
            resume=resume,
            force=force,
            progress=progress if tensorboard is None else _with_tensorboard(progress, tensorboard),
        )
    if is_main_process():
        _show(record, out, target, config, as_json)


def _show(record: Mapping[str, Any], out: Path, target: Path, config: AdaptConfig, as_json: bool) -> None:
    """What came of it, and what to do about it."""
    if as_json:
        parts = {name: record[name] for name in ("doubted", "shares", "verdict")}
        parts |= {"dimensions": record["dimensions"]} if record["dimensions"] else {}
        deploy = None if record["verdict"] is None else record["verdict"]["deploy"]
        echo(json.dumps({"out": str(out), "deploy": deploy, **parts, **record["fusion"]}))
        return
    priors = zip(record["labels"], record["fusion"].get("student_prior", ()), strict=True)
    shown = ", ".join(f"{label} {100 * share:.0f} %" for label, share in priors)
    echo(f"{out}: adapted to {record['clips']} clips" + (f"; predicted {shown}" if shown else ""))
    for name, one in record["dimensions"].items():
        taught = " and ".join(f"{who} {share:.0%}" for who, share in one["shares"].items())
        echo(f"{name}: {one['student']:.2f} on average, taught {one['taught']:.2f} by {taught}")
    if record["verdict"] is not None:
        echo(verdict_text(record["verdict"]))
    for line in _warnings(record, target, config.refine.speakers and config.refine.rounds > 0):
        echo(line, err=True)


def verdict_text(verdict: Mapping[str, Any]) -> str:
    """The verdict as a table of expected scores, and its sentence."""
    parts = {"archive": verdict["archive"], "new voices": verdict["new_voices"]}
    rows = []
    for where, scores in parts.items():
        for who, one in scores.items():
            ua, accuracy = (
                "{:.0f} ({:.0f} to {:.0f})".format(one[k], *one[f"{k}_interval"]) for k in _SCORES
            )
            rows.append(f"  {where:<11}{who:<11}{ua:>15}{accuracy:>17}")
    checked = f"corrected by {verdict['checked']} checked clips" if verdict["checked"] else "without labels"
    head = f"Expected, {checked}, % (95 % interval):{'UA':>3}{'accuracy':>17}"
    return "\n".join([head, *rows, verdict["advice"]])


_SCORES = ("ua", "accuracy")


def _warnings(record: Mapping[str, Any], target: Path, speakers: bool) -> Iterator[str]:
    if record["unnamed"] and speakers and record["labels"]:
        yield (
            f"{record['unnamed']} clips name no speaker: voices were grouped by their sound; name the "
            "speakers if you can, and if all are one voice, that one"
        )
    if record["doubted"] and not record["labelled"]:
        yield (
            f"the LALM names {' or '.join(record['doubted'])} hardly more often where it is expected than "
            "elsewhere: it may take one emotion for another; label some clips "
            f"(mifuse choose {target} -o few.csv) and adapt with --labelled few.csv"
        )


def _with_tensorboard(
    progress: Callable[[Mapping[str, float]], None], folder: Path
) -> Callable[[Mapping[str, float]], None]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise click.ClickException(f"{error}: pip install tensorboard, or leave --tensorboard out") from error
    writer = SummaryWriter(str(folder))

    def write(record: Mapping[str, float]) -> None:
        progress(record)
        for name, value in record.items():
            writer.add_scalar(name, value, int(record["step"]))
        writer.flush()

    return write
