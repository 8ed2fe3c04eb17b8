"""`mifuse evaluate`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mifuse.clips.labels import Naming, require_same_labels
from mifuse.commands.labels import naming_options
from mifuse.commands.output import echo
from mifuse.commands.progress import reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mifuse.clips.manifest import Clip
    from mifuse.runs.concordance import DimensionScore
    from mifuse.runs.metrics import Scores


@click.command(epilog="Example: mifuse evaluate bundle/ target.csv --split test --json")
@click.argument("model")
@click.argument("manifest", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["adapt", "test", "all"]),
    default="test",
    show_default=True,
    help="Rows to score; a manifest without the column is scored whole.",
)
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "openvino"]),
    default="onnxruntime",
    show_default=True,
    help="Engine of a bundle.",
)
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="Precision of a bundle; its own default."
)
@click.option(
    "--trim/--no-trim",
    default=True,
    show_default=True,
    help="Leave out silence at both ends of a clip; a bundle always does.",
)
@click.option(
    "--speakers",
    is_flag=True,
    help="A bundle gets to know each speaker from the clips before, without labels.",
)
@naming_options("Of a checkpoint of others, as hf:NAME.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME=A+B",
    help="Score labels as one, as in negative=angry+sad; once for each group.",
)
@click.option(
    "--range",
    "given",
    multiple=True,
    metavar="[NAME=]LOW:HIGH",
    help="Of MANIFEST's columns of dimensions.  [default: the model's]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(
    *,
    model: str,
    manifest: Path,
    split: str,
    engine: str,
    precision: str | None,
    trim: bool,
    speakers: bool,
    naming: Naming,
    groups: tuple[str, ...],
    given: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score MODEL (a checkpoint's folder, hf:NAME or a bundle) on the labelled rows of MANIFEST.

    Prints UA with its 95 % interval over speakers, WA, macro-F1, ECE and the confusion matrix; of a model
    with dimensions their CCC and mean absolute error, where MANIFEST has their columns.
    """
    from mifuse import evaluation
    from mifuse.clips.audio import AudioCache
    from mifuse.clips.dimensions import parse_ranges

    labels, run = evaluation.open_model(model, engine, precision, naming.labels)
    if naming.labels:
        require_same_labels(naming.labels, labels, model)
    dimensions = evaluation.dimensions_of(run)
    ranges = parse_ranges(",".join(dimensions), given, default=dimensions) if given else dimensions
    clips, truth = evaluation.judged_clips(
        *(manifest, naming.over(labels), split), dimensions=dimensions, ranges=ranges
    )
    if speakers:
        if not isinstance(run, evaluation.Device):
            raise click.UsageError(f"{model} is no bundle: `export` it for --speakers")
        answers = evaluation.predict_known(run, clips, AudioCache(), trim=trim)
    else:
        answers = evaluation.predict(run, reading(clips, "evaluate"), trim=trim)
    values = evaluation.score_values(clips, truth, answers[:, len(labels) :], dimensions)
    labelled = [i for i, clip in enumerate(clips) if clip.label]
    head: dict[str, Any] = {"model": model, "manifest": str(manifest), "split": split, "known": speakers}
    _show(
        *(head, labels, [clips[i] for i in labelled], answers[labelled, : len(labels)]),
        values=values,
        groups=groups,
        as_json=as_json,
    )


def _show(
    head: dict[str, Any],
    labels: Sequence[str],
    clips: Sequence[Clip],
    probs: NDArray[np.float64],
    *,
    values: Mapping[str, DimensionScore],
    groups: Sequence[str],
    as_json: bool,
) -> None:
    """Print the scores of the emotions (N, C) of labelled clips, if there are any, and of dimensions."""
    from mifuse import evaluation
    from mifuse.runs.metrics import exchanged

    document, lines, pair = dict(head), [], []
    people = len({clip.speaker for clip in clips if clip.speaker})
    if clips:
        if groups:
            labels, probs, clips = evaluation.grouped(labels, probs, clips, groups)
        scores = evaluation.score_clips(clips, probs, labels)
        pair = [labels[c] for c in exchanged(scores.confusion) or ()]
        document |= {"speakers": people, "exchanged": pair, "labels": labels} | dataclasses.asdict(scores)
        lines = [summary(scores), confusion_table(scores, labels)]
    if values:
        document["dimensions"] = {name: dataclasses.asdict(score) for name, score in values.items()}
        lines += [dimension_line(name, score) for name, score in values.items()]
    if as_json:
        echo(json.dumps(_without_nan(document), indent=2))
        return
    who = f" of {people} {'known ' if head['known'] else ''}speakers" if people else ""
    count = len(clips) or max(score.n for score in values.values())
    echo(f"{head['model']} on {head['manifest']} ({head['split']}): {count} clips{who}")
    for line in lines:
        echo(line)
    if pair:
        echo(
            f"{' and '.join(pair)} look exchanged: listen to a few clips of each, "
            "then put the labels right, here or where the model was trained",
            err=True,
        )


def dimension_line(name: str, score: DimensionScore) -> str:
    """The scores of a dimension in one line."""
    low, high = score.ccc_interval
    interval = "no interval: one speaker" if math.isnan(low) else f"95 % interval {low:.3f} to {high:.3f}"
    least, most = score.range
    return (
        f"{name}: CCC {score.ccc:.3f} ({interval}) · mean absolute error {score.mae:.3g} "
        f"on {least:g} to {most:g} · {score.n} clips"
    )


def summary(scores: Scores) -> str:
    """The scores in one line."""
    low, high = scores.ua_interval
    interval = "no interval: one speaker" if math.isnan(low) else f"95 % interval {low:.1f} to {high:.1f}"
    return (
        f"UA {scores.ua:.1f} % ({interval}) · WA {scores.wa:.1f} % · "
        f"macro-F1 {scores.macro_f1:.1f} % · ECE {scores.ece:.3f}"
    )


def confusion_table(scores: Scores, labels: Sequence[str]) -> str:
    """Counts, a row a label, a column a prediction, and the recall."""
    first, width = "label / predicted", max(7, *map(len, labels)) + 2
    rows = [f"{first}{''.join(f'{label:>{width}}' for label in labels)}{'recall':>{width}}"]
    for label, counts, recall in zip(labels, scores.confusion, scores.recalls, strict=True):
        cells = "".join(f"{count:>{width}}" for count in counts)
        share = "-" if math.isnan(recall) else f"{recall:.1f} %"
        rows.append(f"{label:<{len(first)}}{cells}{share:>{width}}")
    return "\n".join(rows)


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
