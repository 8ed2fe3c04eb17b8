"""`--labels`, `--aliases` and `--map`: the same for every command that reads labels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mifuse.clips.labels import naming
from mifuse.errors import MifuseError

_MAP = click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="OLD=NEW,…",
    help="Rename labels; OLD= leaves its clips out.",
)
_ALIASES = click.option(
    "--aliases",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='More words for labels: JSON, {"label": ["word", …]}.',
)


def naming_options(
    set_help: str = "", default: str | None = None, *, none: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options to a command, which gets what they say as `naming`.

    Args:
        set_help: help of `--labels`; empty where a model has its set: there is no such option then.
        default: of `--labels`; a command that has one takes `all` for no set, too.
        none: whether it takes `none` for an empty set, where dimensions are enough.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_naming(
            *, mapping: tuple[str, ...], aliases: Path | None, labels: str | None = None, **rest: Any
        ) -> Any:
            try:
                every = default is not None and labels == "all"
                empty = none and labels == "none"
                given = naming(None if every or empty else labels, aliases, mapping)
                given = given.over(()) if empty else given
            except MifuseError as error:
                raise click.UsageError(str(error)) from error
            return command(naming=given, **rest)

        made = _MAP(_ALIASES(with_naming))
        if not set_help:
            return made
        of_set = click.option(
            "--labels", metavar="A,B,…", help=set_help, default=default, show_default=default is not None
        )
        return of_set(made)

    return decorate
