"""`mifuse choose`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest, write_manifest
from mifuse.clips.speech import spoken
from mifuse.commands.output import echo
from mifuse.commands.progress import reading
from mifuse.errors import ManifestError
from mifuse.voices.choosing import DRAWN, draw
from mifuse.voices.choosing import choose as chosen


@click.command(epilog="Example: mifuse choose target.csv -o few.csv --clips 20")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Manifest, at or above the clips."
)
@click.option("--clips", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option(
    "--random",
    "at_random",
    type=click.IntRange(min=1),
    metavar="N",
    help="Draw a check set instead: N clips at random, for `adapt --check`.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another one chooses others.")
@click.option("--force", is_flag=True, help="Replace the manifest if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def choose(
    *, target: Path, output: Path, clips: int, at_random: int | None, seed: int, force: bool, as_json: bool
) -> None:
    """Choose the clips of the manifest TARGET whose labels would help most, before or after adapting.

    Listen to them, write each one's emotion into the column `label` (remove the rows of which you are not
    sure), and give the manifest to `mifuse adapt --labelled`. Of the manifest, rows of split `adapt` are used
    where it has that column; its labels are not read.

    With --random it is a check set: fill in every row, and give it to `mifuse adapt --check`. It measures,
    without bias, how good everything is and how often each emotion occurs; nothing is learnt from it.
    """
    if output.exists() and not force:
        raise ManifestError(f"{output} exists: choose another name, or add --force to replace it")
    cache = AudioCache()
    archive = spoken(read_manifest(target, labels=None).select("adapt").clips, cache, reading)
    if at_random is None:
        few = [replace(archive[i], label=None) for i in chosen(archive, cache, clips, seed)]
    else:
        note = {DRAWN: f"random {at_random} of {len(archive)}, seed {seed}"}
        rows = draw(archive, cache, at_random, seed)
        few = [replace(archive[i], label=None, extra={**archive[i].extra, **note}) for i in rows]
    write_manifest(output, few, empty=("label",))
    if as_json:
        result = {"manifest": str(output), "clips": [clip.name for clip in few], "of": len(archive)}
        echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    option = "--labelled" if at_random is None else "--check"
    echo(
        f"{output}: {len(few)} of {len(archive)} clips. Listen to them and write each one's emotion "
        f"into the column label, then: mifuse adapt … {option} {output}"
    )
