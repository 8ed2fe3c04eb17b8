"""predictions.csv of a run: what each predictor says about each clip. Labels are never in it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.manifest import Key
from mifuse.errors import MifuseError
from mifuse.files import whole_file
from mifuse_runtime.shown import quoted, unquoted

Floats = NDArray[np.float64]

MEASURES = ("lalm_weight", "lalm_mi", "classifier_mi")


@dataclass(frozen=True)
class Predictions:
    """Distributions over C emotions for N clips.

    Args:
        labels: emotions, in the order of the probabilities.
        keys: `Clip.key` of each clip.
        probs: who (LALM, classifier, fused, student, …) -> (N, C); NaN where it says nothing.
        measures: `lalm_weight` (share of the LALM in the fused label), `lalm_mi`, `classifier_mi` (nats)
            -> (N,); NaN for clips that were not fused.
    """

    labels: tuple[str, ...]
    keys: tuple[Key, ...]
    probs: Mapping[str, Floats]
    measures: Mapping[str, Floats] = field(default_factory=dict)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write as CSV: path, start, end, channel, the measures, then `who:label` columns with five digits."""
    groups = {f"{who}:{label}": probs[:, index] for who, probs in predictions.probs.items()
              for index, label in enumerate(predictions.labels)}  # fmt: skip
    columns = {**predictions.measures, **groups}
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "start", "end", "channel", *columns])
        for row, (name, start, end, channel) in enumerate(predictions.keys):
            ends = ["" if value is None else repr(value) for value in (start, end)]
            values = (float(column[row]) for column in columns.values())
            writer.writerow(
                [
                    quoted(name),
                    *ends,
                    channel or "",
                    *("" if np.isnan(value) else f"{value:.5f}" for value in values),
                ]
            )


def read_predictions(path: Path, labels: Sequence[str]) -> Predictions:
    """Read what `write_predictions` wrote.

    Raises:
        MifuseError: not such a file, or it has other labels.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file))
        table = {name: [row[index] for row in rows] for index, name in enumerate(header)}
        ends = [[float(value) if value else None for value in table[name]] for name in ("start", "end")]
        floats = {
            name: np.array([float(value) if value else np.nan for value in column])
            for name, column in table.items()
            if name in MEASURES or ":" in name
        }
        who = list(dict.fromkeys(name.partition(":")[0] for name in floats if ":" in name))
        probs = {name: np.stack([floats[f"{name}:{label}"] for label in labels], axis=1) for name in who}
        channels = [text or None for text in table.get("channel", [""] * len(rows))]
        keys = tuple(zip(map(unquoted, table["path"]), *ends, channels, strict=True))
    except (KeyError, ValueError, IndexError) as error:
        raise MifuseError(
            f"{path}: no predictions over {', '.join(labels)} ({error}): run the adaptation again"
        ) from error
    measures = {name: floats[name] for name in MEASURES if name in floats}
    return Predictions(tuple(labels), keys, probs, measures)
