"""The version with the commit that it was built from, for `--version` and reports of faults."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path

from mifuse_runtime import __version__

FOLDER = Path(__file__).resolve().parent
COMMIT = FOLDER / "commit.json"  # `git archive` puts the commit in, of which releases are built
CHARACTERS = 9  # of a commit that pip noted in full


def described(distribution: str) -> str:
    """The version, and the commit behind it where that can be known.

    Args:
        distribution: `mifuse` or `mifuse-runtime`, as pip calls it.
    """
    commit = _archived() or _checked_out(FOLDER.parents[1]) or _cloned_by_pip(distribution)
    return f"{__version__} ({commit})" if commit else __version__


def _archived() -> str:
    commit = json.loads(COMMIT.read_text(encoding="utf-8"))["commit"]
    return "" if "$" in commit else str(commit)


def _checked_out(root: Path) -> str:
    """Of the working tree `root`, with "-dirty" behind it where files were changed since."""
    # Not any tree around: an environment may lie inside the user's own.
    if not (root / ".git").exists() or root / "runtime" / "mifuse_runtime" != FOLDER:
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _cloned_by_pip(distribution: str) -> str:
    """Of `pip install git+https://…`, which notes it."""
    try:
        noted = importlib.metadata.distribution(distribution).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    commit = json.loads(noted or "{}").get("vcs_info", {}).get("commit_id", "")
    return str(commit)[:CHARACTERS]
