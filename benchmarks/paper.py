"""The paper's six transfers, from your own copies of its three corpora, beside what it published.

    python -m benchmarks.paper --iemocap DIR --msp-improv DIR --msp-podcast DIR --work DIR \\
        --teacher openai --model NAME --budget-usd 50 [--most 5000] [--dry-run] [--seeds 3 …]

Prepares each corpus (angry, happy with excited, neutral, sad), buys the draws that are missing, runs
`benchmarks.transfers`, whose options may follow, and prints the table. Stopped, it goes on where it was.
Draws that you have already are put into WORK/corpora/NAME/lalm_draws.jsonl. What the paper does not say is
chosen here: splits (speakers, 30 %; of MSP-Podcast its own Test1), clips, LALM, prompt and student, see
docs/paper.md.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks import transfers
from benchmarks.units import FILES
from mifuse.cli import main as mifuse
from mifuse.clips.folders import scan
from mifuse.clips.labels import LABELS, Naming
from mifuse.clips.manifest import Clip, write_manifest
from mifuse.clips.preparation import split_speakers
from mifuse.errors import ManifestError, MifuseError

CORPORA = ("iemocap", "msp-improv", "msp-podcast")
# UA, %, arXiv 2509.20706. No other figure of its table is known here for certain.
PUBLISHED = {"mean": 58.38, "msp-improv>iemocap": 59.09}
TEST, HELD_OUT = 0.3, "Test1"  # share of the clips in the test split; the set of MSP-Podcast that is it
DRAWS = FILES[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit code 1 on failure."""
    options, rest = parser().parse_known_args(arguments)
    try:
        for name in CORPORA:
            folder = options.work / "corpora" / name
            prepare_corpus(name, getattr(options, name.replace("-", "_")), folder, options.most)
        missing = [name for name in CORPORA if not (options.work / "corpora" / name / DRAWS).is_file()]
        for name in missing:
            buy(options.work / "corpora" / name, options)
        if options.dry_run:
            return 0
        return compare(options.work, rest)
    except (MifuseError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The options."""
    it = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in CORPORA:
        it.add_argument(f"--{name}", type=Path, required=True, help="your copy, as its makers send it")
    it.add_argument("--work", type=Path, required=True, help="folder of manifests, draws and results")
    it.add_argument("--most", type=int, default=5000, help="labelled clips of a corpus, at random (5000)")
    it.add_argument("--teacher", help="as of `mifuse label`; not needed where the draws are there")
    it.add_argument("--model", help="as of `mifuse label`")
    it.add_argument("--base-url", help="as of `mifuse label`")
    it.add_argument("--price", help="as of `mifuse label`")
    it.add_argument("--budget-usd", type=float, help="for each corpus")
    it.add_argument("--dry-run", action="store_true", help="prepare, say what the draws cost, and stop")
    return it


def prepare_corpus(name: str, recordings: Path, folder: Path, most: int) -> None:
    """Write `folder`/source.csv and target.csv of a user's copy, which is linked and not written to.

    Raises:
        MifuseError: the folder is not that corpus, or has too few speakers or emotions.
    """
    if (folder / "target.csv").is_file():
        return
    if not recordings.is_dir():
        raise ManifestError(f"{recordings}: no such folder; `mifuse fetch {name}` says where to ask for it")
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "recordings"
    if not link.is_symlink():
        link.symlink_to(recordings.resolve(), target_is_directory=True)
    found = scan(link, name, Naming(LABELS))
    clips = [clip for clip in found.clips if clip.label]
    counts = Counter(clip.label for clip in clips)
    if missing := [label for label in LABELS if not counts[label]]:
        raise ManifestError(
            f"{recordings}: no {missing[0]} clip of {name} was found: is its label file there?"
        )
    random.Random(0).shuffle(clips)
    split = split_clips(clips[:most])
    write_manifest(folder / "source.csv", [replace(clip, split=None) for clip in split])
    write_manifest(folder / "target.csv", split)
    said = ", ".join(f"{label} {counts[label]}" for label in LABELS)
    print(f"{name}: {said}; {len(split)} are used", file=sys.stderr)


def split_clips(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """The clips with a split: the corpus's own held-out set, else speakers; who has neither is left out."""
    sets = {clip.extra.get("set") for clip in clips}
    if HELD_OUT in sets and len(sets - {None}) > 1:
        known = [clip for clip in clips if clip.extra.get("set")]
        return tuple(
            replace(clip, split="test" if clip.extra["set"] == HELD_OUT else "adapt") for clip in known
        )
    return split_speakers([clip for clip in clips if clip.speaker], TEST)


def buy(folder: Path, options: argparse.Namespace) -> None:
    """Ask the teacher for the draws of a corpus, and write them where `benchmarks.transfers` looks.

    Raises:
        MifuseError: no teacher is named, or draws are missing at the end.
    """
    if not options.teacher:
        raise MifuseError(f"{folder / DRAWS} is missing: name a --teacher, or put the draws there")
    store = folder / "draws.db"
    label: list[Any] = ["label", folder / "target.csv", "--teacher", options.teacher, "--store", store]
    for name in ("model", "base_url", "price", "budget_usd"):
        if (value := getattr(options, name)) is not None:
            label += [f"--{name.replace('_', '-')}", value]
    _mifuse(*label, "--labels", ",".join(LABELS), "--dry-run" if options.dry_run else "--yes")
    if not options.dry_run:
        _mifuse("draws", "export", store, "--manifest", folder / "target.csv", "-o", folder / DRAWS)


def _mifuse(*words: object) -> None:
    try:
        mifuse.main([str(word) for word in words], standalone_mode=False)
    except click.ClickException as error:
        raise MifuseError(error.format_message()) from error


def compare(work: Path, rest: Sequence[str]) -> int:
    """Run the transfers and print ours beside the published figures."""
    out = work / "paper.json"
    words = ["--corpora", str(work / "corpora"), "--work", str(work / "units"), "--out", str(out)]
    code = transfers.main([*words, *rest])
    if out.is_file():
        print("\n" + beside(json.loads(out.read_text(encoding="utf-8"))))
        print(f"\n{out}")
    return code


def beside(document: dict[str, Any]) -> str:
    """Markdown: UA on the archive of each method, and of the paper."""
    names = document["settings"]["methods"]
    rows = {row["transfer"]: row["methods"] for row in document["transfers"]} | {"mean": document["mean"]}
    lines = ["| UA, % | " + " | ".join(names) + " | published |", "| --- |" + " ---: |" * (len(names) + 1)]
    for transfer, row in rows.items():
        cells = [f"{row[name]['adapt']['ua']:.1f}" if name in row else "-" for name in names]
        known = PUBLISHED.get(transfer)
        lines.append(f"| {transfer} | " + " | ".join(cells) + f" | {known or '-'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
