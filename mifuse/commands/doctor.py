"""`mifuse doctor`."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from mifuse.commands.output import echo


@click.command(epilog="Example: mifuse doctor")
@click.option("--fix", is_flag=True, help="Make torchaudio importable beside a CPU-only torch, then check.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def doctor(fix: bool, as_json: bool) -> None:
    """Check this installation and say what to run when something is broken.

    Exit code 1 when something installed does not work; an extra that is not installed is no failure.
    """
    from mifuse import doctor as checks

    for line in checks.fix() if fix else []:
        echo(line, err=True)
    findings = checks.diagnose()
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
