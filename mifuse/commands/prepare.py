"""`mifuse prepare`: a folder of recordings to a manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mifuse.clips import preparation
from mifuse.clips.detection import FLAT
from mifuse.clips.folders import EACH, NAMES, Scan
from mifuse.clips.labels import LABELS, Naming
from mifuse.clips.manifest import Clip
from mifuse.commands.labels import naming_options
from mifuse.commands.output import echo
from mifuse.commands.progress import reading
from mifuse_runtime.audio import channel_index
from mifuse_runtime.errors import AudioError
from mifuse_runtime.files import FFMPEG_SUFFIXES

PREVIEW = 10  # rows shown of what a pattern finds
MOST_SPEAKERS = 30  # rows of the printed table; --json has them all


def _channel(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None and value != EACH:
            channel_index(value)
    except AudioError as error:
        raise click.BadParameter(f"{error}, or each") from error
    return value


@click.command(
    epilog="Example: mifuse prepare ravdess/ -o ravdess/manifest.csv --map calm=neutral --split-test 0.3"
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Manifest, at or above the clips."
)
@click.option("--corpus", type=click.Choice(NAMES), help="How files are named; found out when not given.")
@naming_options("The labels to take; all: every emotion that the corpus names.", ",".join(LABELS))
@click.option("--speaker-from", metavar="REGEX", help="Finds the speaker in a path (its first group).")
@click.option("--label-from", metavar="REGEX", help="Finds the emotion in a path (its first group).")
@click.option(
    "--test-speakers", metavar="A,B", help="Put these speakers in the test split, the rest in adapt."
)
@click.option(
    "--split-test",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Put about this share of the clips in the test split, whole speakers at a time.",
)
@click.option("--test-set", metavar="A,B", help="Put these sets of the corpus itself in the test split.")
@click.option("--seed", default=0, show_default=True, help="Chooses the speakers of --split-test.")
@click.option("--segment", is_flag=True, help="Split recordings of more than 15 s at their pauses.")
@click.option(
    "--channel",
    callback=_channel,
    metavar="0|1|left|right|mix|each",
    help="Channel that rows are of; each: rows for every channel, each one a speaker.",
)
@click.option(
    "--voices",
    is_flag=True,
    help="With --segment: a speaker for each voice of a channel, found by its sound.",
)
@click.option("--force", is_flag=True, help="Replace the manifest if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def prepare(
    *,
    folder: Path,
    output: Path,
    corpus: str | None,
    naming: Naming,
    speaker_from: str | None,
    label_from: str | None,
    test_speakers: str | None,
    split_test: float | None,
    test_set: str | None,
    seed: int,
    segment: bool,
    channel: str | None,
    voices: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Turn FOLDER into a manifest: labels and speakers come from the names of its files.

    Known corpora: RAVDESS, EMO-DB, nEMO, CREMA-D, IEMOCAP, MSP-IMPROV, MSP-Podcast, URDU-Dataset, TESS,
    SAVEE, ESD, CASIA, EMOVO, JL, SUBESCO, AESDD, CaFE, ShEMO, MELD, ASED, TurEV-DB; several of them in
    one folder. A database in audformat is read where `audformat` is installed. Otherwise a folder per
    class (`folders`), a word of each name (`names`), or unlabelled clips (`flat`).
    """
    if sum(map(bool, (test_speakers, split_test, test_set))) > 1:
        raise click.UsageError(
            "--test-speakers, --split-test and --test-set exclude each other: give one of them"
        )
    if voices and not segment:
        raise click.UsageError("--voices groups the turns of a recording: add --segment")
    named = [name.strip() for name in test_speakers.split(",")] if test_speakers else None
    found = preparation.prepare(
        folder,
        output,
        corpus,
        naming=naming,
        test=split_test or named,
        test_sets=test_set.split(",") if test_set else (),
        seed=seed,
        force=force,
        speaker_from=speaker_from,
        label_from=label_from,
        segment=segment,
        channel=channel,
        speakers=_by_voice if voices else None,
        bar=reading,
    )
    summary = _summary(found, output)
    echo(json.dumps(summary, indent=2, ensure_ascii=False) if as_json else _text(summary))
    if (speaker_from or label_from) and not as_json:
        echo("first rows:")
        for clip in found.clips[:PREVIEW]:
            echo(f"  {clip.name}  label {clip.label or '-'}  speaker {clip.speaker or '-'}")
    if found.mostly_lost:
        raise click.ClickException(
            f"{output} is written, but {found.lost} recordings were left out, more than it holds "
            f"({len(found.clips)}): convert them, or name their emotions with --map or --label-from"
        )


def _by_voice(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    from mifuse.voices.turns import by_voice  # loads torch

    return by_voice(clips, bar=lambda turns: reading(turns, "compare voices"))


def _summary(found: Scan, output: Path) -> dict[str, Any]:
    speakers: dict[str, dict[str, int]] = {speaker: {} for speaker in _by(found.clips, "speaker")}
    for (speaker, label), count in Counter((clip.speaker, clip.label) for clip in found.clips).items():
        if speaker is not None:
            speakers[speaker][label or "unlabelled"] = count
    return {
        "manifest": str(output),
        "corpus": found.corpus,
        "clips": len(found.clips),
        "namings": dict(found.counts),
        "labels": _by(found.clips, "label"),
        "splits": _by(found.clips, "split"),
        "speakers": speakers,
        "mapping": dict(found.mapping),
        "left_out": dict(found.left_out),
    }


def _by(clips: Sequence[Clip], column: str) -> dict[str, int]:
    """Clips per value of a column, sorted; clips without one are not counted."""
    values = (getattr(clip, column) for clip in clips)
    return dict(sorted(Counter(value for value in values if value is not None).items()))


def _text(summary: dict[str, Any]) -> str:
    speakers = summary["speakers"]
    namings = summary["namings"]
    counts = ", ".join(f"{name} {count}" for name, count in namings.items())
    named = counts if len(namings) > 1 else summary["corpus"]
    lines = [f"{summary['manifest']}: {summary['clips']} clips ({named}), {len(speakers)} speakers"]
    if summary["corpus"] == FLAT:
        lines.append("unlabelled: no folder or file name says an emotion")
    labels = sorted({label for label in summary["mapping"].values() if label})
    sources = {label: [e for e, to in summary["mapping"].items() if to == label] for label in labels}
    wide = max(8, *map(len, labels), 0)
    lines += [
        f"  {label:<{wide}} {summary['labels'].get(label, 0):>6}  from {', '.join(sources[label])}"
        for label in labels
    ]
    if summary["splits"]:
        lines.append("splits: " + ", ".join(f"{name} {count}" for name, count in summary["splits"].items()))
    if summary["left_out"]:
        counts = ", ".join(f"{name} {count}" for name, count in summary["left_out"].items())
        unread = any(name in FFMPEG_SUFFIXES for name in summary["left_out"])
        way = (
            "convert them to WAV or FLAC, or install ffmpeg"
            if unread
            else "take with --labels or --map OLD=NEW"
        )
        lines.append(f"left out: {counts} ({way})")
    if speakers:
        width = max(map(len, speakers))
        lines.append(f"{'speaker':<{max(width, 7)}} " + " ".join(f"{label:>{wide}}" for label in labels))
        for name, counts in list(speakers.items())[:MOST_SPEAKERS]:
            row = " ".join(f"{counts.get(label, 0):>{wide}}" for label in labels)
            lines.append(f"{name:<{max(width, 7)}} {row}")
        if len(speakers) > MOST_SPEAKERS:
            lines.append(f"and {len(speakers) - MOST_SPEAKERS} more speakers (--json lists them)")
    return "\n".join(lines)
