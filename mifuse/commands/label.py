"""`mifuse label`: get draws from a LALM for every clip of a manifest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mifuse.errors import DrawsError

if TYPE_CHECKING:
    from mifuse.teachers.base import Teacher

API_TEACHERS = ("anthropic", "openai")


@click.command(
    epilog="Example: mifuse label target.csv --teacher replay:lalm_draws.jsonl --store draws.db --draws 8"
)
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--teacher",
    "spec",
    required=True,
    metavar="replay[:FILE]",
    help="Whom to ask. replay plays back the JSONL file FILE, else lalm_draws.jsonl beside the manifest.",
)
@click.option("--model", help="Model to ask; with replay the teacher to play back, where FILE holds several.")
@click.option(
    "--draws", type=click.IntRange(min=1), help="Draws per clip (K).  [default: with replay, all of the file]"
)
@click.option(
    "--store",
    "store_path",
    required=True,
    type=click.Path(path_type=Path),
    help="Draws store (SQLite) to fill.",
)
@click.option(
    "--split",
    type=click.Choice(["adapt", "test", "all"]),
    default="all",
    show_default=True,
    help="Rows to label.",
)
@click.option(
    "--dry-run", is_flag=True, help="Count what is there and what is missing; ask and store nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def label(
    *,
    manifest: Path,
    spec: str,
    model: str | None,
    draws: int | None,
    store_path: Path,
    split: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Get draws from a LALM for every clip of MANIFEST.

    Draws that the store has are not asked for again, and each answer is on the disk before the next
    question: stop it at any time and run the same command to go on.
    """
    import asyncio

    from mifuse.audio import AudioCache
    from mifuse.manifest import read_manifest
    from mifuse.teachers import labelling
    from mifuse.teachers.store import DrawsStore

    # Labels of the manifest are none of a teacher's business, so any are fine here.
    clips = read_manifest(manifest, labels=None).select(split).clips
    teacher = open_teacher(spec, model, manifest)
    count = draws or teacher.default_draws
    cache = AudioCache()
    summary: dict[str, Any] = {"teacher": str(teacher.source), "store": str(store_path), "clips": len(clips)}
    summary["draws"] = count
    if dry_run:
        plan = labelling.plan(clips, count, _stored(store_path, teacher), cache)
        _show({**summary, "present": plan.present, "missing": len(plan.questions)}, as_json)
        return
    with DrawsStore(store_path) as store:
        plan = labelling.plan(clips, count, store.keys(teacher.source), cache)
        with click.progressbar(
            length=len(plan.questions), label=f"Asking {teacher.source}", file=sys.stderr, show_pos=True
        ) as bar:
            run = asyncio.run(labelling.label_clips(teacher, plan.questions, store, bar.update))
    _show({**summary, "present": plan.present, "added": run.added, "missing": len(run.missing)}, as_json)
    if run.missing:
        without = len({question.clip_hash for question, _ in run.missing})
        raise DrawsError(
            f"{len(run.missing)} draws of {without} clips could not be had, first: {run.missing[0][1]}: "
            "the others are stored; get the missing ones, or ask for fewer --draws"
        )


def open_teacher(spec: str, model: str | None, manifest: Path) -> Teacher:
    """The teacher that `--teacher` and `--model` mean."""
    from mifuse.teachers.replay import ReplayTeacher

    kind, _, file = spec.partition(":")
    if kind == "replay":
        return ReplayTeacher(file or manifest.parent / "lalm_draws.jsonl", model)
    if kind in API_TEACHERS:
        raise click.UsageError(f"the teacher {kind} is not in this version yet: use replay:FILE")
    raise click.UsageError(f"unknown teacher {spec!r}: use replay or replay:FILE")


def _stored(path: Path, teacher: Teacher) -> set[tuple[str, int]]:
    from mifuse.teachers.store import DrawsStore

    if not path.exists():
        return set()
    with DrawsStore(path, read_only=True) as store:
        return store.keys(teacher.source)


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary))
        return
    for name, value in summary.items():
        click.echo(f"{name:<8} {value}")
