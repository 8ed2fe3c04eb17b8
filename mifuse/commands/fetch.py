"""`mifuse fetch`: a public corpus, from its makers to a manifest."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from mifuse.clips.sources import Source, on_request, source, sources
from mifuse.commands.output import echo
from mifuse.commands.progress import bar
from mifuse.errors import MifuseError

MANIFEST = "manifest.csv"
STEP = 1 << 20  # bytes: the bar counts in MB


@click.command(epilog="Example: mifuse fetch ravdess -o ravdess/ --yes")
@click.argument("corpus", required=False)
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder.  [default: the corpus's name]",
)
@click.option("--yes", is_flag=True, help="You have read the licence and agree to it.")
@click.option("--url", metavar="URL", default="", help="Another address of the same archive, as of a mirror.")
@click.option(
    "--split-test",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Put about this share of the clips in the test split, whole speakers at a time.",
)
@click.option(
    "--list", "listed", is_flag=True, help="List what can be fetched, and what is given on request."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def fetch(
    *,
    corpus: str | None,
    out: Path | None,
    yes: bool,
    url: str,
    split_test: float | None,
    listed: bool,
    as_json: bool,
) -> None:
    """Fetch CORPUS from its makers, and prepare a manifest of it.

    The licence is shown first and must be agreed to. A download that was cut goes on where it was. What came
    is held to its published size and hash, or where none are, to those of the first time. Terms, citation and
    hashes stay beside the recordings, in fetched.json.
    """
    if listed:
        _list(as_json)
        return
    if corpus is None:
        raise click.UsageError("name a corpus; --list has them")
    chosen = source(corpus)
    if not chosen.url:
        raise MifuseError(on_request(chosen))
    folder = out or Path(chosen.name)
    if not (folder / MANIFEST).exists():
        _agree(chosen, yes)
    manifest, clips = _fetched(chosen, folder, url, split_test)
    if as_json:
        echo(json.dumps({"corpus": chosen.name, "manifest": str(manifest), "clips": clips}))
    else:
        echo(f"{manifest}: {clips} clips. Cite: {chosen.citation}")


def _list(as_json: bool) -> None:
    if as_json:
        echo(json.dumps({name: vars(one) for name, one in sources().items()}, ensure_ascii=False))
        return
    for one in sources().values():
        size = f"{one.size / 1e6:.0f} MB" if one.size else "on request" if one.ask else "size not known"
        echo(f"{one.name:<12} {one.title} ({size}); licence: {one.licence}")


def _agree(chosen: Source, yes: bool) -> None:
    """Show the terms, and ask.

    Raises:
        click.UsageError: nobody is there to be asked.
        click.Abort: no.
    """
    for line in (
        chosen.title,
        f"licence: {chosen.licence}",
        f"page:    {chosen.page}",
        f"cite:    {chosen.citation}",
    ):
        echo(line, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"read the licence of {chosen.name} ({chosen.page}); --yes says that you agree"
        )
    click.confirm("Do you agree to the licence?", abort=True, err=True)


def _fetched(chosen: Source, folder: Path, url: str, split_test: float | None) -> tuple[Path, int]:
    from mifuse.clips.fetching import fetch as fetch_corpus
    from mifuse.clips.preparation import prepare

    manifest = folder / MANIFEST
    if manifest.exists():
        raise MifuseError(f"{manifest} exists: {chosen.name} is there already; choose another folder with -o")
    with bar(chosen.limit // STEP, f"fetch {chosen.name}, MB") as update:
        done = 0

        def tick(size: int, total: int | None) -> None:
            nonlocal done
            update(size // STEP - done, f"of {total / 1e6:.0f} MB" if total else "")
            done = size // STEP

        recordings = fetch_corpus(chosen, folder, url=url, tick=tick)
    found = prepare(recordings, manifest, chosen.name, test=split_test)
    return manifest, len(found.clips)
