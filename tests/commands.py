"""The workstation's command line, in this process: for several tests."""

from __future__ import annotations

from click.testing import CliRunner

from mifuse.cli import main


def run(*words: object, code: int = 0) -> str:
    """What a command says, of one that fails with its errors; its exit code must be `code`."""
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output
