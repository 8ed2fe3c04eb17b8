"""`--targets` and `--range`: the same for every command that reads dimensions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from mifuse.clips.dimensions import parse_ranges
from mifuse.errors import MifuseError


def dimension_options(targets_help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options to a command, which gets name -> range as `dimensions`; empty without `--targets`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_dimensions(*, targets: str | None, given: tuple[str, ...], **rest: Any) -> Any:
            if given and targets is None:
                raise click.UsageError("--range is of the dimensions that --targets names: give it, too")
            try:
                ranges = {} if targets is None else parse_ranges(targets, given)
            except MifuseError as error:
                raise click.UsageError(str(error)) from error
            return command(dimensions=ranges, **rest)

        ranged = click.option(
            "--range",
            "given",
            multiple=True,
            metavar="[NAME=]LOW:HIGH",
            help="Of the dimensions, or of one.  [default: 0:1]",
        )(with_dimensions)
        return click.option("--targets", metavar="arousal,valence,…", help=targets_help)(ranged)

    return decorate
