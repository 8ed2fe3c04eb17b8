"""Progress on standard error: a bar on a terminal; elsewhere a line at the start and one every 30 s."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TextIO, TypeVar

import click

T = TypeVar("T")
Update = Callable[[int, str], None]  # with how many steps are done more, and a note on them

EVERY = 30.0  # seconds between lines in a log


@contextmanager
def bar(length: int, label: str, screen: TextIO | None = None) -> Iterator[Update]:
    """What to call as steps are done; `screen`: None is standard error."""
    screen = screen or sys.stderr
    if not screen.isatty():
        yield _lines(length, label, screen)
        return
    with click.progressbar(
        length=length, label=label, file=screen, show_pos=True, item_show_func=lambda text: text
    ) as shown:

        def update(count: int, note: str = "") -> None:
            shown.update(count, note or None)
            if not count:
                shown.render_progress()

        yield update


def _lines(length: int, label: str, screen: TextIO) -> Update:
    click.echo(label, file=screen)
    started = last = time.monotonic()
    done = 0

    def update(count: int, note: str = "") -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last < EVERY:
            return
        last = now
        left = f"{(now - started) * (length - done) / done / 60:.0f} min left" if done else ""
        parts = (f"{done} of {length}", note, left)
        click.echo(f"{label}: {', '.join(part for part in parts if part)}", file=screen)

    return update


def reading(clips: Iterable[T], label: str = "read clips") -> Iterator[T]:
    """The clips, one after another, and how far they are."""
    clips = clips if isinstance(clips, Collection) else list(clips)
    with bar(len(clips), label) as update:
        for clip in clips:
            yield clip
            update(1, "")


@contextmanager
def epochs(label: str, steps: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Over optimiser steps; call what it yields with the record of each epoch."""
    from mifuse.runs.processes import is_main_process

    done = 0
    with bar(steps, label, sys.stderr if is_main_process() else io.StringIO()) as update:

        def progress(record: Mapping[str, float]) -> None:
            nonlocal done
            if "encoded" in record:  # minutes before the first step
                update(0, f"{record['encoded']:.0f} clips encoded")
                return
            ua = f" UA {record['validation_ua']:.1f}" if "validation_ua" in record else ""
            ccc = f" CCC {record['validation_ccc']:.3f}" if "validation_ccc" in record else ""
            update(int(record["step"]) - done, f"loss {record['loss']:.3f}{ua}{ccc}")
            done = int(record["step"])

        yield progress


@contextmanager
def distillations() -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A bar of `epochs` for each student that an export teaches; most exports teach none."""
    with ExitStack() as bars:
        progress: Callable[[Mapping[str, float]], None]

        def record(epoch: Mapping[str, float]) -> None:
            nonlocal progress
            if epoch["epoch"] == 1:
                from mifuse.exporting.compress import DISTIL

                bars.close()
                progress = bars.enter_context(epochs("teach a narrower student", DISTIL.steps))
            progress(epoch)

        yield record
