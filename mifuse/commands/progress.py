"""Progress bars, on standard error."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import click

T = TypeVar("T")


def reading(clips: Iterable[T]) -> Iterator[T]:
    """The clips, one after another, under a bar."""
    with click.progressbar(clips, label="read clips", file=sys.stderr) as bar:
        yield from bar


@contextmanager
def epochs(label: str, steps: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A bar over optimiser steps on standard error; call what it yields with the record of each epoch."""
    from mifuse.runs.processes import is_main_process

    screen = sys.stderr if is_main_process() else io.StringIO()
    with click.progressbar(length=steps, label=label, file=screen, item_show_func=lambda text: text) as bar:

        def progress(record: Mapping[str, float]) -> None:
            if "encoded" in record:  # minutes before the first step
                bar.current_item = f"{record['encoded']:.0f} clips encoded"
                bar.render_progress()
                return
            ua = f" UA {record['validation_ua']:.1f}" if "validation_ua" in record else ""
            bar.update(int(record["step"]) - bar.pos, f"loss {record['loss']:.3f}{ua}")

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
