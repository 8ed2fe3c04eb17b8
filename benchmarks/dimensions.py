"""Arousal and valence over the whole way: LALM, classifier and student on a target, and the bundle in 8 bits.

    MIFUSE_CORPORA=… python -m benchmarks.dimensions [--transfers synthetic,koremo-ravdess] [--steps 600]

No corpus here has dimensions: emotions are **mapped** to places in the plane of Russell (1980), and the
stand-in LALM says the place that its probabilities mean, in whole numbers from 1 to 7. A CCC says how well
a student learns numbers, not how it finds what people rate. `synthetic` is speech that mifuse.demo makes.
Printed is the CCC of each on the archive (the `adapt` rows) and on new speakers (`test`), float and 8 bits.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.provenance import command, commit
from mifuse.adapt_files import AdaptInputs, adapt_manifest
from mifuse.clips.dimensions import dimension_values
from mifuse.clips.manifest import read_manifest, write_manifest
from mifuse.demo.stand_in import stand_in_lalm
from mifuse.demo.synth import make_domain
from mifuse.evaluation import evaluate_dimensions
from mifuse.exporting.student import export_student
from mifuse.fusion.recipes import RECIPES
from mifuse.models.classifier import TrainConfig, train_manifest
from mifuse.runs.concordance import mean_ccc
from mifuse.teachers.numbers import load_numbers
from mifuse_export import ExportConfig
from mifuse_runtime.bundle import load

RANGES = {"arousal": (1.0, 7.0), "valence": (1.0, 7.0)}
PLANE = {
    "angry": (6.4, 1.9),
    "happy": (5.8, 6.4),
    "neutral": (3.4, 4.0),
    "sad": (1.9, 2.2),
}  # arousal, valence


def place(probs: Mapping[str, float]) -> dict[str, float]:
    """Where probabilities are in the plane, as a LALM says it: in whole numbers."""
    total = sum(probs.values())
    mean = np.sum([share / total * np.array(PLANE[label]) for label, share in probs.items()], axis=0)
    return dict(zip(RANGES, np.round(mean).tolist(), strict=True))


def mapped(manifest: Path, out: Path) -> Path:
    """The manifest with the columns `arousal` and `valence`; its clips are linked, not copied."""
    out.parent.mkdir(parents=True, exist_ok=True)
    clips = []
    for clip in read_manifest(manifest).clips:
        path = out.parent / clip.name
        top = out.parent / Path(clip.name).parts[0]
        if not top.exists():
            top.symlink_to((manifest.parent / Path(clip.name).parts[0]).resolve())
        numbers = zip(RANGES, map(str, PLANE[str(clip.label)]), strict=True)
        clips.append(replace(clip, path=path, extra=dict(numbers)))
    write_manifest(out, clips)
    return out


def with_places(draws: Path, out: Path) -> Path:
    """The draws, each with the numbers that its probabilities mean."""
    rows = [json.loads(line) for line in draws.read_text("utf-8").splitlines()]
    lines = (json.dumps(row | {"dimensions": place(row["probs"])}) for row in rows)
    out.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return out


def inputs(transfer: str, folder: Path) -> tuple[Path, Path, Path]:
    """Manifests of source and target, and the draws."""
    if transfer == "synthetic":
        source = make_domain(folder / "made" / "studio", "studio", speakers=12, clips_per_speaker=20)
        target = make_domain(
            folder / "made" / "phone", "phone", speakers=12, clips_per_speaker=20, test_speakers=4
        )
        draws = stand_in_lalm(read_manifest(target), folder / "stand_in.jsonl", draws=4)
    else:
        names, corpora = transfer.split("-"), os.environ.get("MIFUSE_CORPORA")
        if not corpora:
            raise SystemExit("set MIFUSE_CORPORA to the folder of the corpora")
        source, target = (
            Path(corpora, name, f"{part}.csv") for name, part in zip(names, ("source", "target"), strict=True)
        )
        draws = target.with_name("lalm_draws.jsonl")
    return (
        mapped(source, folder / "source" / "source.csv"),
        mapped(target, folder / "target" / "target.csv"),
        with_places(draws, folder / "draws.jsonl"),
    )


def rows(transfer: str, steps: int, folder: Path) -> Iterator[tuple[str, str, list[float]]]:
    """Who, on what, and the CCC of each dimension."""
    source, target, draws = inputs(transfer, folder)
    config = TrainConfig()
    train_manifest(
        source,
        folder / "classifier",
        config=replace(config, fit=replace(config.fit, steps=steps)),
        dimensions=RANGES,
    )
    given = AdaptInputs(str(folder / "classifier"), target, [draws])
    recipe = RECIPES["default"]
    adapt_manifest(
        given,
        folder / "student",
        config=replace(recipe, verdict=False, fit=replace(recipe.fit, steps=steps)),
    )
    export_student(folder / "student", folder / "bundle", ExportConfig(int8=True))
    clips = read_manifest(target).select("adapt").clips
    truth, said = dimension_values(clips, RANGES, target), load_numbers(draws, clips, RANGES).mean(axis=0)
    columns = range(len(RANGES))
    yield "LALM, mean draw", "archive", [mean_ccc(truth[:, [v]], said[:, [v]]) for v in columns]
    for who, precision in (("classifier", None), ("student", None), ("bundle", "fp32"), ("bundle", "int8")):
        for split, where in (("adapt", "archive"), ("test", "new speakers")):
            found = evaluate_dimensions(folder / who, target, split, precision=precision)
            yield f"{who} {precision or ''}".strip(), where, [score.ccc for score in found.values()]
    quality = load(folder / "bundle").quality
    yield "int8 with fp32, the lower", "rows that judge int8", [quality["int8"]["concordance"]] * len(RANGES)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--transfers", default="synthetic,koremo-ravdess", help="source-target, comma-separated"
    )
    parser.add_argument("--steps", type=int, default=600, help="of classifier and student each (600)")
    options = parser.parse_args()
    print(f"`{command()}` at {commit()}; emotions mapped to dimensions, stand-in LALMs\n")
    print(f"| transfer | who | on | {' | '.join(f'CCC {name}' for name in RANGES)} |")
    print(f"| --- | --- | --- | {' | '.join('--:' for _ in RANGES)} |", flush=True)
    for transfer in options.transfers.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for who, where, scores in rows(transfer, options.steps, Path(folder)):
                cells = " | ".join(f"{score:.3f}" for score in scores)
                print(f"| {transfer} | {who} | {where} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
