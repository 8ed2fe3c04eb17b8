"""Corpora like the given ones with the archives that users have: speakers unnamed, or mostly one emotion.

    python -m benchmarks.archives --corpora DIR --out FOLDER --nameless
    python -m benchmarks.archives --corpora DIR --out FOLDER --most neutral --share 0.7

FOLDER is then a `--corpora` of `benchmarks.transfers`. Only `adapt` rows change: what is scored as new
speakers stays, and so do sources and draws. True labels choose which clips are left out, as the world would.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.transfers import find_corpora
from benchmarks.units import FILES
from mifuse.errors import MifuseError
from mifuse.labels import LABELS
from mifuse.manifest import Clip, read_manifest, write_manifest


def nameless(clips: Sequence[Clip]) -> list[Clip]:
    """The clips without the speakers of their `adapt` rows."""
    return [replace(clip, speaker=None) if clip.split == "adapt" else clip for clip in clips]


def mostly(clips: Sequence[Clip], emotion: str, share: float, seed: int = 0) -> list[Clip]:
    """All `adapt` clips of one emotion, and of each other as many as leave it its share, drawn at random.

    Raises:
        MifuseError: a clip has no label, or the share is none or leaves the others fewer than a clip each.
    """
    if not 0 < share < 1:
        raise MifuseError(f"share = {share:g}: it must be above 0 and below 1")
    rows: dict[str, list[int]] = {label: [] for label in LABELS}
    for i, clip in enumerate(clips):
        if clip.split == "adapt":
            if clip.label is None:
                raise MifuseError(f"{clip.name} has no label: which emotion prevails is not known then")
            rows[clip.label].append(i)
    each = round(len(rows[emotion]) * (1 / share - 1) / (len(LABELS) - 1))
    if each < 1:
        raise MifuseError(f"{len(rows[emotion])} {emotion} clips are too few to be {share:.0%} of an archive")
    rng = np.random.default_rng(seed)
    out = {i for label in LABELS if label != emotion for i in rng.permutation(rows[label])[each:]}
    return [clip for i, clip in enumerate(clips) if i not in out]


def make(corpus: Path, out: Path, clips: Sequence[Clip]) -> None:
    """A corpus with these clips as its target: the manifest is written, all else linked."""
    out.mkdir(parents=True)
    for entry in corpus.iterdir():
        if entry.name != FILES[1]:
            (out / entry.name).symlink_to(entry.resolve())
    write_manifest(out / FILES[1], [replace(clip, path=out.absolute() / clip.name) for clip in clips])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the corpora. Exit code 1 when that cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.archives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpora", type=Path, required=True, help="folder of corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder that is made")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--nameless", action="store_true", help="nobody says who speaks")
    what.add_argument("--most", choices=LABELS, help="the emotion of most clips")
    parser.add_argument("--share", type=float, default=0.7, help="its share")
    options = parser.parse_args(arguments)
    try:
        corpora = [options.corpora / name for name in find_corpora(options.corpora)]
        manifests = [read_manifest(corpus / FILES[1]).clips for corpus in corpora]
        chosen = [
            nameless(clips) if options.nameless else mostly(clips, options.most, options.share)
            for clips in manifests
        ]
        for corpus, clips in zip(corpora, chosen, strict=True):
            out = options.out / corpus.name
            make(corpus, out, clips)
            print(f"{out}: {sum(clip.split == 'adapt' for clip in clips)} clips to adapt to")
    except (MifuseError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
