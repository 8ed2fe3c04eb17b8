"""The option `--encoder hf:NAME`, which several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def encoder_option(help_: str) -> Callable[[Command], Command]:
    """`--encoder hf:NAME`; the command is given NAME: of the hub, or a folder."""
    return click.option("--encoder", metavar="hf:NAME", callback=_name, help=help_)


def _name(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.startswith("hf:"):
        raise click.BadParameter(f"{value}: write hf:{value}, for a folder too")
    return value and value.removeprefix("hf:")
