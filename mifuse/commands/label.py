"""`mifuse label`: get draws from a LALM for every clip of a manifest."""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mifuse.commands.dimensions import dimension_options
from mifuse.commands.labels import naming_options
from mifuse.commands.output import echo
from mifuse.commands.progress import bar, reading
from mifuse.errors import DrawsError

if TYPE_CHECKING:
    from mifuse.clips.audio import AudioCache
    from mifuse.clips.labels import Naming
    from mifuse.clips.manifest import Clip
    from mifuse.teachers.base import Source
    from mifuse.teachers.labelling import Plan
    from mifuse.teachers.opening import Opened
    from mifuse.teachers.questions import Labelled
    from mifuse.teachers.store.database import DrawsStore


AUTO = "auto"


def _draws(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """A number, or `auto`."""
    if value is None or value == AUTO:
        return value
    if not value.removeprefix("-").isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number nor {AUTO}")
    number: int = click.IntRange(min=1).convert(int(value), param, ctx)
    return number


@click.command(
    epilog="Example: mifuse label target.csv --teacher openai --model gpt-audio --store draws.db --dry-run"
)
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--teacher",
    "spec",
    required=True,
    metavar="openai|anthropic|local:NAME|hf:NAME|funasr:NAME|replay[:FILE]",
    help="Whom to ask. openai: any OpenAI-shaped endpoint. local: a model on this machine. "
    "hf, funasr: a classifier on this machine. "
    "replay: the JSONL file FILE, else lalm_draws.jsonl beside the manifest.",
)
@click.option("--model", help="Model to ask; with replay the teacher to play back, where FILE holds several.")
@click.option(
    "--draws", callback=_draws, metavar="K|auto",
    help="Draws per clip (K). auto: one request each, then again about clips whose label another answer may "
    "change, up to 8 draws.  [default: 4; with replay, all of the file]",
)  # fmt: skip
@click.option(
    "--store", "store_path", required=True, type=click.Path(path_type=Path),
    help="Draws store (SQLite) to fill; several processes may share it.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(["adapt", "test", "all"]), default="all", show_default=True,
    help="Rows to label.",
)  # fmt: skip
@naming_options(
    "What to ask for, or none.  [default: the labels of MANIFEST, or angry,happy,neutral,sad]", none=True
)
@click.option(
    "--describe", "descriptions", multiple=True, metavar="LABEL=TEXT",
    help="What a label means, told in each question; once for each label.",
)  # fmt: skip
@dimension_options("Numbers to ask for beside the labels, or alone.")
@click.option(
    "--dry-run", is_flag=True, help="Say what there is, what is missing and what it can cost; send nothing."
)
@click.option(
    "--budget-usd", type=click.FloatRange(min=0),
    help="USD that the store's draws may cost in all, earlier runs among them; never passed.",
)  # fmt: skip
@click.option(
    "--price",
    metavar="IN,OUT[,AUDIO]",
    help="USD per million tokens, for a model without a known price; or 0.",
)
@click.option("--batch", is_flag=True, help="anthropic: by Message Batches, at half the price, within a day.")
@click.option("--yes", is_flag=True, help="Agree to what leaves this machine.")
@click.option("--base-url", help="Address of the endpoint, as in http://localhost:8000/v1.")
@click.option(
    "--probs", type=click.Choice(["verbal", "logprobs"]), default="verbal", show_default=True,
    help="openai: the model says the probabilities, or they are read from its tokens.",
)  # fmt: skip
@click.option("--effort", help="anthropic: low, medium, high, xhigh or max.  [default: the model's own]")
@click.option("--temperature", type=float, help="openai: of the sampling.  [default: 1]")
@click.option("--per-request", type=int, help="openai: draws from one prompt in one request.  [default: 4]")
@click.option("--max-seconds", type=float, help="Longer clips are cut.  [default: 30]")
@click.option("--max-tokens", type=int, help="Of an answer.")
@click.option("--concurrency", type=int, help="The most requests open at a time.")
@click.option("--timeout", type=float, help="Seconds until a request is tried again.")
@click.option("--seed", type=int, help="Of the prompts.  [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def label(
    *,
    manifest: Path,
    spec: str,
    model: str | None,
    draws: int | str | None,
    store_path: Path,
    split: str,
    naming: Naming,
    descriptions: tuple[str, ...],
    dimensions: dict[str, tuple[float, float]],
    dry_run: bool,
    budget_usd: float | None,
    yes: bool,
    probs: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Get draws from a LALM for every clip of MANIFEST.

    Draws that the store has are not asked for again, and each answer is on the disk with its price before
    the next question: stop it at any time and run the same command to go on. Keys are read from
    OPENAI_API_KEY and ANTHROPIC_API_KEY.
    """
    from mifuse.clips.audio import AudioCache
    from mifuse.clips.speech import spoken
    from mifuse.teachers import labelling
    from mifuse.teachers.service import key_from_environment
    from mifuse.teachers.store.database import DrawsStore

    if budget_usd is not None and not math.isfinite(budget_usd):
        raise click.UsageError(f"--budget-usd {budget_usd}: give an amount, or leave it out for no bound")
    settings, cache = options | {"logprobs": probs == "logprobs"}, AudioCache()
    questions: Any = {"descriptions": descriptions, "dimensions": dimensions, "options": settings}
    opened, rows = _open(spec, model, manifest, cache, split=split, naming=naming, **questions)
    if draws == AUTO and opened.labels == ():
        raise click.UsageError("--draws auto asks again where an emotion may change: give a number of draws")
    source, clips = opened.teacher.source, spoken(rows, cache, reading, broken=True)
    count = None if isinstance(draws, str) else draws or opened.teacher.default_draws
    summary: dict[str, Any] = {"teacher": str(source), "store": str(store_path)}
    summary |= {"clips": len(clips), "draws": count or AUTO}
    summary |= opened.notes
    if dry_run:
        _show(summary | _estimate(opened, clips, count, store_path, cache), as_json)
        return
    if opened.key:
        key_from_environment(opened.key)
    with DrawsStore(store_path) as store:
        plans = labelling.plans(clips, count, opened.teacher, store, cache)
        plan = next(plans)
        if plan.questions:
            _agree(opened, store, len(clips), yes)
            _measure(opened, len(rows))
        run = _run(opened, itertools.chain([plan], plans), store, budget_usd)
    summary |= {"present": run.present, "added": run.added, "missing": len(run.missing) + run.unasked}
    if opened.price:
        summary |= {"invalid": run.invalid, "usd": round(run.usd, 6)}
    _show(summary, as_json)
    _complain(run, budget_usd)


def _open(
    spec: str,
    model: str | None,
    manifest: Path,
    cache: AudioCache,
    *,
    split: str,
    naming: Naming,
    **options: Any,
) -> tuple[Opened, tuple[Clip, ...]]:
    """The teacher, and the rows that it is asked about."""
    from mifuse.clips.labels import LABELS
    from mifuse.clips.manifest import label_set, read_manifest
    from mifuse.teachers.opening import UNASKED, OptionError, open_teacher

    # What a clip is labelled is none of a teacher's business; which labels there are is.
    whole = read_manifest(manifest, labels=None)
    rows = whole.select(split).clips
    labels = LABELS if spec.partition(":")[0] in UNASKED else label_set(whole, naming)
    try:
        opened = open_teacher(spec, model, manifest, rows, cache, labels=labels, naming=naming, **options)
        return opened, rows
    except OptionError as error:
        raise click.UsageError(str(error)) from error


def _estimate(
    opened: Opened, clips: Sequence[Clip], count: int | None, store_path: Path, cache: AudioCache
) -> dict[str, Any]:
    """What a dry run shows: draws that are there and that are missing, the question, the price."""
    from mifuse.teachers import labelling
    from mifuse.teachers.asking_again import MOST

    stored, mean = _stored(store_path, opened.teacher.source)
    plan = labelling.plan(clips, count or MOST, stored, cache)
    found: dict[str, Any] = {"present": plan.present, "missing": len(plan.questions)}
    if opened.prompts:
        found["question"] = opened.prompts.get(0).text
    return found | labelling.estimate(opened.teacher, plan.questions, opened.price, mean)


def _run(opened: Opened, plans: Iterable[Plan], store: DrawsStore, budget: float | None) -> Labelled:
    """Ask what each plan lacks, until one cannot be answered as a whole."""
    import asyncio

    from mifuse.teachers.labelling import label_clips
    from mifuse.teachers.questions import Labelled

    by: Any = label_clips
    if opened.batch:
        from mifuse.teachers.batches import label_by_batches as by

    async def ask() -> Labelled:
        teacher: Any = opened.teacher
        done = Labelled(0, ())
        try:
            for plan in plans:
                with _bar(len(plan.questions), f"Asking {teacher.source}") as progress:
                    money: Any = {"price": opened.price, "budget": budget}
                    done += Labelled(0, (), present=plan.present)
                    done += await by(teacher, plan.questions, store, progress, opened.labels, **money)
                if done.missing or done.unasked:
                    break
            return done
        finally:
            await teacher.close()

    return asyncio.run(ask())


def _measure(opened: Opened, clips: int) -> None:
    """What a teacher has to know before its first question."""
    if opened.prepare:
        with bar(clips, "Measuring voices") as update:
            opened.prepare(lambda: update(1, ""))


@contextmanager
def _bar(length: int, label: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error that shows draws a second and the time that is left."""
    started, done = time.monotonic(), 0
    with bar(length, label) as update:

        def progress(count: int) -> None:
            nonlocal done
            done += count
            update(count, f"{done / max(time.monotonic() - started, 1e-3):.1f} draws/s")

        yield progress


def _agree(opened: Opened, store: DrawsStore, clips: int, yes: bool) -> None:
    """Say what leaves the machine, and have the user agree once for each host."""
    readable = f"http://{opened.host}"
    if opened.unencrypted and not store.may_send_to(readable):
        echo(
            f"The key and what is sent go to {opened.host} over plain http: anybody on the way can read it.",
            err=True,
        )
        if not yes:
            raise click.UsageError("use https://, or say --yes if that network is yours")
        store.agree_to(readable)
    if not opened.host or store.may_send_to(opened.host):
        return
    echo(
        f"For {clips} clips, {opened.sends} go to {opened.host}; "
        "labels and the names of files and speakers do not.",
        err=True,
    )
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is here to agree: say --yes, or run it in a terminal")
        click.confirm("Send them?", abort=True, err=True)
    store.agree_to(opened.host)


def _complain(run: Labelled, budget: float | None) -> None:
    """Exit with a line that says what is missing."""
    problems = []
    if run.missing:
        without = len({question.clip_hash for question, _ in run.missing})
        problems.append(
            f"{len(run.missing)} draws of {without} clips could not be had, first: {run.missing[0][1]}: "
            "the others are stored; get the missing ones, or ask for fewer --draws"
        )
    if run.unasked:
        problems.append(
            f"{run.unasked} draws are missing because another request could pass the budget of ${budget:g}: "
            "what was answered is stored; run again with a higher --budget-usd to go on"
        )
    if problems:
        raise DrawsError("; ".join(problems))


def _stored(path: Path, source: Source) -> tuple[set[tuple[str, int]], float | None]:
    from mifuse.teachers.store.database import DrawsStore

    if not path.exists():
        return set(), None
    with DrawsStore(path, read_only=True) as store:
        return store.keys(source), store.mean_price(source)


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo(json.dumps(summary))
        return
    width = max(8, *map(len, summary))
    for name, value in summary.items():
        echo(f"{name:<{width}} {value}")
