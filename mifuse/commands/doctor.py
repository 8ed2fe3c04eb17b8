"""`mifuse doctor`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mifuse.commands.encoders import encoder_option
from mifuse.commands.output import echo

if TYPE_CHECKING:
    from mifuse.doctor import Check
    from mifuse.models.trial import Use

LENGTH = 4.0  # s, of a clip of the archive that --clips stands for


@click.command(epilog="Example: mifuse doctor --encoder hf:microsoft/wavlm-base-plus")
@click.option("--fix", is_flag=True, help="Make torchaudio importable beside a CPU-only torch, then check.")
@encoder_option("Instead: what a checkpoint is good for, and how long it takes here.")
@click.option(
    "--clips", type=click.IntRange(min=1), default=10_000, show_default=True,
    help="With --encoder: clips of an archive, 4 s each.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def doctor(fix: bool, encoder: str | None, clips: int, as_json: bool) -> None:
    """Check this installation and say what to run when something is broken.

    Exit code 1 when something installed does not work; an extra that is not installed is no failure.
    With --encoder: 1 when the checkpoint is good for nothing.
    """
    from mifuse import doctor as checks

    if encoder is not None:
        if fix:
            raise click.UsageError("--fix is of the installation: leave it out beside --encoder")
        _show(_of_encoder(encoder, clips), as_json)
        return
    for line in checks.fix() if fix else []:
        echo(line, err=True)
    _show(checks.diagnose(), as_json)


def _show(findings: Sequence[Check], as_json: bool) -> None:
    healthy = all(finding.status != "broken" for finding in findings)
    if as_json:
        document = {"ok": healthy, "checks": [dataclasses.asdict(finding) for finding in findings]}
        echo(json.dumps(document, indent=2))
    else:
        for finding in findings:
            echo(f"{finding.status:<7} {finding.name:<18} {finding.detail}")
            if finding.run:
                echo(f"{'':<26} run: {finding.run}")
    sys.exit(0 if healthy else 1)


def _of_encoder(name: str, clips: int) -> list[Check]:
    """What a checkpoint can be, and what each use costs here; all broken where it can be neither."""
    from mifuse.doctor import Check
    from mifuse.models.trial import tried

    encoder, classifier = tried(name)
    missing = "broken" if encoder.missing and classifier.missing else "absent"
    checks = []
    if encoder.missing:
        checks.append(Check("as encoder", missing, encoder.missing))
    else:
        kept = f"{encoder.layers} layers x {encoder.width} are kept, {clips * encoder.kept / 1e6:,.0f} MB"
        detail = f"{_size(encoder)}; {_time(encoder, clips)}; {kept}"
        checks.append(
            Check("as encoder", "ok", detail, f"mifuse train MANIFEST --encoder hf:{name} -o source/")
        )
    if classifier.missing:
        checks.append(Check("as classifier", missing, classifier.missing))
    else:
        detail = (
            f"{_size(classifier)}; says {', '.join(classifier.words)}; a draw: {_time(classifier, clips)}"
        )
        checks.append(
            Check(
                "as classifier", "ok", detail, f"mifuse label MANIFEST --teacher hf:{name} --store draws.db"
            )
        )
    return checks


def _size(use: Use) -> str:
    return f"{use.kind}, {use.parameters / 1e6:,.1f} M parameters"


def _time(use: Use, clips: int) -> str:
    """How long an archive takes, in words."""
    hours = use.hours(clips, LENGTH)
    said = f"{hours:,.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"
    return f"{clips:,} clips of {LENGTH:g} s take {said} here"
