"""What the commands write: in lines that hide nothing."""

from __future__ import annotations

import logging

import click

from mifuse_runtime.shown import shown


def echo(text: object = "", err: bool = False) -> None:
    """Print text; names of files, labels and words of services in it may come from anywhere."""
    click.echo("\n".join(map(shown, str(text).split("\n"))), err=err)


class OneLine(logging.Formatter):
    """A log entry in one line, but for a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, of logging
        return shown(super().formatMessage(record))
