"""Every table of the docs, one after the other: measured here, or printed from what was stored.

    make bench    # python -m benchmarks [NAME …] [--minutes 2] [--fresh]

What a fresh clone has the inputs of is measured, if that takes no more than --minutes. The rest (corpora, an
encoder, a quiet hour) is printed from benchmarks/results, with the command, commit and date that it is of.
A table that is named is measured however long it takes. Ctrl-C loses the table that is being measured; the
next run goes on from there: what is measured is kept in build/bench until a Python file changes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provenance import commit
from mifuse.exporting.bench import machine
from mifuse.files import whole_file

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KEPT = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Table:
    """A row of tables.json."""

    name: str
    page: str  # whose table it is
    command: str = ""  # after `python -m`; none: too long for this, the stored result names it
    minutes: float = 0.0  # on two cores, about
    needs: tuple[str, ...] = ()  # variables that name folders, and folders of this one
    stored: str = ""  # file of benchmarks/results

    def missing(self) -> list[str]:
        """What it needs and is not here."""
        return [need for need in self.needs if not Path(os.environ.get(need) or ROOT / need).is_dir()]

    def kept(self, code: str) -> Path:
        """Where its text is kept for this code and this command."""
        key = hashlib.sha256(f"{code} {self.words()}".encode()).hexdigest()[:12]
        return KEPT / f"{self.name}-{key}.txt"

    def words(self) -> list[str]:
        """Of the command, with folders in the place of variables."""
        return [os.path.expandvars(word) for word in shlex.split(self.command)]

    def measured(self, file: Path) -> None:
        """Run it, show its lines as they come, keep them.

        Raises:
            subprocess.CalledProcessError: it failed; nothing is kept.
        """
        KEPT.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        command = [sys.executable, "-m", *self.words()]
        environment = {"ORT_DISABLE_TELEMETRY": "1", **os.environ}
        with whole_file(file) as part:
            with part.open("w", encoding="utf-8") as lines, subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
            ) as process:  # fmt: skip
                assert process.stdout
                try:
                    for line in process.stdout:
                        _say(line, end="")
                        lines.write(line)
                except BaseException:
                    process.terminate()
                    raise
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            where = f"{machine().cpu}, {machine().cores} cores, load {machine().load:g}"
            head = f"`python -m {self.command}` at {commit()}, {time.strftime('%Y-%m-%d')}, {where}"
            text = part.read_text(encoding="utf-8")
            part.write_text(f"{head}, {time.monotonic() - began:.0f} s\n\n{text}", encoding="utf-8")

    def from_stored(self) -> str:
        """Text of the stored result, with where it is from."""
        file = RESULTS / self.stored
        if not self.stored:
            return f"{self.page} has the numbers of an earlier run."
        if file.suffix == ".txt":
            return f"Stored: {file.read_text(encoding='utf-8').rstrip()}"
        document = json.loads(file.read_text(encoding="utf-8"))
        return f"Stored: {_source(file, document)}\n\n{shown(document)}"


def _source(file: Path, document: Mapping[str, Any]) -> str:
    """Commit and date of a stored result; of old files those of git."""
    told = document.get("provenance", document)
    git = ["git", "log", "-1", "--format=%H %cs", "--", str(file)]
    found = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    stored = f"stored with {found[0][:8]}, {found[1]}" if found else "of unknown date"
    made = f"at {told['commit'][:8]}, {told.get('date')}" if "commit" in told else stored
    old = f"; superseded: {document['superseded']}" if "superseded" in document else ""
    return f"`{told.get('command', 'command not stored')}` {made}{old}"


def shown(document: dict[str, Any]) -> str:
    """The tables of a stored result, as its benchmark prints them."""
    from benchmarks import compression, export, field_table, roofline, scale, speakers, transfers
    from benchmarks.peers.table import table

    printers: dict[str, Callable[[dict[str, Any]], str]] = {
        "simulate": scale.markdown,
        "ceilings": roofline.table,
        "rows": table,
        "cells": field_table.markdown,
        "points": lambda found: compression.table(found["mean"]),
    }
    for key, printer in printers.items():
        if key in document:
            return printer(document)
    if "settings" not in document and "summary" not in document:
        return speakers.markdown(document.get("students", document))
    with contextlib.redirect_stdout(io.StringIO()) as text:
        if "summary" in document:
            export.show(document["students"], document["summary"])
        else:
            transfers.show(document, document["settings"]["recipe"])
    return text.getvalue().strip()


def tables() -> list[Table]:
    """All of tables.json."""
    rows = json.loads(Path(__file__).with_name("tables.json").read_text(encoding="utf-8"))
    return [Table(**row | {"needs": tuple(row.get("needs", ()))}) for row in rows]


def code() -> str:
    """Hash of all Python that a table may depend on."""
    digest = hashlib.sha256()
    for folder in ("mifuse", "export", "runtime", "benchmarks", "tests"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def show(table: Table, wanted: bool, options: argparse.Namespace, version: str) -> bool:
    """Print one table; whether all that was asked for could be done."""
    _say(f"\n## {table.name} ({table.page})\n")
    file, missing = table.kept(version), table.missing()
    if table.command and file.is_file() and not options.fresh:
        _say(f"Measured here: {file.read_text(encoding='utf-8').rstrip()}")
        return True
    if not table.command or missing or not (wanted or table.minutes <= options.minutes):
        why = f"without {' and '.join(missing)}" if missing else "as that takes hours"
        if table.command and not missing:
            why = f"as that takes about {table.minutes:g} min: make bench ARGS={table.name}"
        _say(f"Not measured, {why}. {table.from_stored()}")
        return not wanted
    _say(f"Measuring, about {table.minutes:g} min: `python -m {table.command}`\n")
    try:
        table.measured(file)
    except subprocess.CalledProcessError as error:
        _say(f"{table.name} ended with exit code {error.returncode}")
        return False
    return True


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def main(arguments: Iterable[str] | None = None) -> int:
    """Print them. Exit code 1: one failed, or was asked for and cannot be measured; 130: Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    every = {table.name: table for table in tables()}
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"these alone: {', '.join(every)}")
    parser.add_argument("--minutes", type=float, default=2.0, help="longest that is measured unasked (2)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is kept")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if unknown := [name for name in options.names if name not in every]:
        parser.error(f"no table {unknown[0]!r}: there are {', '.join(every)}")
    version = code()
    try:
        failed = [
            name
            for name in options.names or every
            if not show(every[name], name in options.names, options, version)
        ]
    except KeyboardInterrupt:
        _say("\nStopped; the same command goes on from here.")
        return 130
    if failed:
        _say(f"\nNot measured as asked: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
