"""A classifier on a pretrained encoder beside the compact one: one corpus to the speakers of another.

    MIFUSE_CORPORA=… python -m benchmarks.encoders --encoder ../shared/models/whisper-base-encoder

Both are trained on `source.csv` of one corpus and say the emotions of the `test` rows of another's
`target.csv`, as `adapt` asks them: the mean of draws, each clip within its speaker where speakers are known,
or alone. Printed are UA and the gain of the encoder in points. The encoder's states are kept in the cache.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.provenance import command, commit
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.models.classifier import classifier_draws, train_classifier, ua
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student

CORPORA = ("koremo", "nemo", "ravdess")
DRAWS = 8
WHERE = ("named speakers", "unknown speakers")


def scores(model: Student | HubClassifier, clips: Sequence[Clip], cache: AudioCache) -> NDArray[np.float64]:
    """UA of clips within their speakers, and alone."""
    truth = np.array([LABELS.index(str(clip.label)) for clip in clips])
    views = (clips, [clip.without_speaker() for clip in clips])
    return np.array([ua(truth, classifier_draws(model, view, cache, DRAWS).mean(axis=0)) for view in views])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", required=True, help="hub name or folder of a checkpoint")
    parser.add_argument("--corpora", nargs="+", default=CORPORA, help=f"two or more of {', '.join(CORPORA)}")
    options = parser.parse_args()
    if not os.environ.get("MIFUSE_CORPORA"):
        raise SystemExit("set MIFUSE_CORPORA to the folder of the corpora")
    folder, cache = Path(os.environ["MIFUSE_CORPORA"]), AudioCache()
    print(f"`{command()}` at {commit()}; UA, %\n")
    print("| transfer | speakers | compact | encoder | points |\n| --- | --- | --: | --: | --: |", flush=True)
    found: dict[tuple[str, str], NDArray[np.float64]] = {}
    for source in options.corpora:
        clips = read_manifest(folder / source / "source.csv").clips
        models = [
            train_classifier(clips, cache, labels=LABELS, encoder=encoder).model
            for encoder in (None, options.encoder)
        ]
        for target in sorted({*options.corpora} - {source}):
            rows = read_manifest(folder / target / "target.csv").select("test").clips
            found[source, target] = np.array([scores(model, rows, cache) for model in models])
            for place, column in zip(WHERE, found[source, target].T, strict=True):
                row(f"{source}>{target}", place, column)
    mean = np.mean(list(found.values()), axis=0)
    for place, column in zip(WHERE, mean.T, strict=True):
        row(f"mean of {len(found)}", place, column)


def row(name: str, place: str, column: NDArray[np.float64]) -> None:
    """A line of the table."""
    compact, encoder = column
    print(f"| {name} | {place} | {compact:.1f} | {encoder:.1f} | {encoder - compact:+.1f} |", flush=True)


if __name__ == "__main__":
    main()
