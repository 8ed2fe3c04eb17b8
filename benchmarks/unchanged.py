"""Whether this tree does what another commit does: same weights, same bundle, same options.

    python -m benchmarks.unchanged COMMIT --corpora DIR [--source nemo] [--target ravdess]
                                   [--set fit.steps=40 …] [--set-classifier fit.steps=40 …]

The commit is checked out beside this tree. In both, `mifuse adapt` and `mifuse export --int8` run with one
seed, from one classifier that the commit trained. Exit code 1 when a byte differs (timing.json apart) or an
option of a command is missing or new.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.workers import popen

ROOT = Path(__file__).resolve().parent.parent
UNLIKE = ("timing.json", "run.json")  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both and compare. Exit code 1 when they differ."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unchanged",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("commit")
    parser.add_argument("--corpora", type=Path, required=True, help="folder of corpora")
    parser.add_argument("--source", default="nemo")
    parser.add_argument("--target", default="ravdess")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of `mifuse adapt`")
    parser.add_argument(
        "--set-classifier", action="append", default=[], metavar="NAME=VALUE", help="of `mifuse train`"
    )
    parser.add_argument("--only-options", action="store_true", help="compare the options alone")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = folder / "tree"
        check_out(options.commit, before)
        differences = compare("options", help_options(before), help_options(ROOT))
        if not options.only_options:
            run_both(folder, before, options)
            for part in ("student", "bundle"):
                mine, theirs = (digests(folder / tree / part) for tree in ("now", "before"))
                differences += compare(part, theirs, mine)
    print("\n".join(differences) or "unchanged")
    return 1 if differences else 0


def check_out(commit: str, folder: Path) -> None:
    """The files of a commit."""
    command = ["git", "archive", commit]
    content = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


def mifuse(tree: Path, folder: Path, *words: object) -> str:
    """Run a command of a tree in `folder`; what it prints."""
    paths = [tree, tree / "export", tree / "runtime", ROOT]  # the last for benchmarks.workers
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "MIFUSE_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    with popen("mifuse", [*map(str, words)], env=environment, cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout
        output: bytes = process.stdout.read()
    if process.returncode:
        sys.exit(f"{tree}: mifuse {words[0]} failed")
    return output.decode()


def help_options(tree: Path) -> dict[str, set[str]]:
    """Command -> its options."""
    with tempfile.TemporaryDirectory() as name:
        commands = sorted(file.stem for file in (tree / "mifuse" / "commands").glob("[a-z]*.py"))
        listed = mifuse(tree, Path(name), "-h")
        commands = [command for command in commands if re.search(rf"^  {command} ", listed, re.MULTILINE)]
        found = {command: mifuse(tree, Path(name), command, "-h") for command in commands}
    # In the list of options, not where the text speaks of another command's.
    return {
        command: set(re.findall(r"(?<=[ /])--[a-z][a-z0-9-]*", "\n".join(option_lines(text))))
        for command, text in found.items()
    }


def option_lines(text: str) -> Iterable[str]:
    """The lines of a help that begin with an option."""
    return re.findall(r"^  -.*", text.partition("Options:")[2], re.MULTILINE)


def run_both(folder: Path, before: Path, options: argparse.Namespace) -> None:
    """Train one classifier; adapt and export in both trees."""
    source, target = options.corpora.resolve() / options.source, options.corpora.resolve() / options.target
    mifuse(before, folder, "train", source / "source.csv", "-o", "source", *changes(options.set_classifier))
    for name, tree in (("before", before), ("now", ROOT)):
        place = folder / name
        place.mkdir()
        words: list[object] = ["adapt", "--source", folder / "source", "--target", target / "target.csv"]
        words += ["--draws", target / "lalm_draws.jsonl", "-o", "student"]
        mifuse(tree, place, *words, *changes(options.set))
        words = ["export", "student", "-o", "bundle", "--int8", "--calibration", target / "target.csv"]
        mifuse(tree, place, *words, "--max-drop", 100)


def changes(settings: Iterable[str]) -> list[str]:
    """NAME=VALUE as options."""
    return [word for setting in settings for word in ("--set", setting)]


def digests(folder: Path) -> dict[str, set[str]]:
    """File -> its SHA-256, but of those that hold times."""
    return {
        str(file.relative_to(folder)): {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in UNLIKE
    }


def compare(what: str, before: dict[str, set[str]], now: dict[str, set[str]]) -> list[str]:
    """A line for each name that is not in both, or has other contents."""
    lines = []
    for name in sorted({*before, *now}):
        gone, new = (
            before.get(name, set()) - now.get(name, set()),
            now.get(name, set()) - before.get(name, set()),
        )
        if gone or new or (name in before) != (name in now):
            lines.append(
                f"{what} of {name}: {sorted(gone) or 'nothing'} before, {sorted(new) or 'nothing'} now"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
