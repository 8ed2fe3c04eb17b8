"""Corpora like the given ones: archives as users have them, or labels put right.

    python -m benchmarks.archives --corpora DIR --out FOLDER --nameless
    python -m benchmarks.archives --corpora DIR --out FOLDER --most neutral --share 0.7
    python -m benchmarks.archives --corpora DIR --out FOLDER --exchange koremo angry sad

FOLDER is then a `--corpora` of `benchmarks.transfers`. With unnamed speakers and with mostly one emotion only
`adapt` rows change: what is scored as new speakers stays, and so do sources and draws. True labels choose
which clips are left out, as the world would. Labels are exchanged in a corpus as source and as target, draws
stay; why koremo's should be is in docs/method.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.transfers import find_corpora
from benchmarks.units import FILES
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip, read_manifest, write_manifest
from mifuse.errors import MifuseError


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


def without(clips: Sequence[Clip], emotion: str) -> list[Clip]:
    """The clips without the `adapt` rows of one emotion."""
    return [clip for clip in clips if clip.split != "adapt" or clip.label != emotion]


def moods(clips: Sequence[Clip], emotions: int) -> list[Clip]:
    """Of each speaker's `adapt` rows those of so many emotions, others for each speaker in turn."""
    names = sorted({clip.speaker or "" for clip in clips if clip.split == "adapt"})
    shown = {
        name: {LABELS[(i + i // len(LABELS) * (k > 0) + k) % len(LABELS)] for k in range(emotions)}
        for i, name in enumerate(names)
    }
    return [clip for clip in clips if clip.split != "adapt" or clip.label in shown[clip.speaker or ""]]


def few(clips: Sequence[Clip], count: int, seed: int = 0) -> list[Clip]:
    """At most `count` of the `adapt` rows, drawn at random."""
    rows = [i for i, clip in enumerate(clips) if clip.split == "adapt"]
    kept = set(np.random.default_rng(seed).permutation(rows)[:count].tolist())
    return [clip for i, clip in enumerate(clips) if clip.split != "adapt" or i in kept]


def fold(clips: Sequence[Clip], number: int, folds: int) -> list[Clip]:
    """The clips with a share of all speakers as `test`, the others as `adapt`, by turns, `number` from 1."""
    names = sorted({clip.speaker or "" for clip in clips})
    order = np.random.default_rng(0).permutation(len(names))
    new = {names[k] for i, k in enumerate(order) if i % folds == number - 1}
    return [replace(clip, split="test" if (clip.speaker or "") in new else "adapt") for clip in clips]


def exchanged(clips: Sequence[Clip], a: str, b: str) -> list[Clip]:
    """The clips with two labels exchanged."""
    other = {a: b, b: a}
    return [replace(clip, label=other.get(clip.label or "", clip.label)) for clip in clips]


def make(corpus: Path, out: Path, manifests: Mapping[str, Sequence[Clip]]) -> None:
    """A corpus with these clips in its manifests, by their file names: they are written, all else linked."""
    out.mkdir(parents=True)
    for entry in corpus.iterdir():
        if entry.name not in manifests:
            (out / entry.name).symlink_to(entry.resolve())
    for name, clips in manifests.items():
        write_manifest(out / name, [replace(clip, path=out.absolute() / clip.name) for clip in clips])


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
    what.add_argument("--exchange", nargs=3, metavar=("CORPUS", "A", "B"), help="put two wrong labels right")
    parser.add_argument("--share", type=float, default=0.7, help="share of the emotion of most clips")
    options = parser.parse_args(arguments)
    try:
        names = find_corpora(options.corpora)
        if options.exchange:
            wrong, *pair = options.exchange
            if wrong not in names or not set(pair) <= set(LABELS):
                raise MifuseError(
                    f"--exchange {' '.join(options.exchange)}: name a corpus ({', '.join(names)}) and two of "
                    f"its labels ({', '.join(LABELS)})"
                )
        chosen = {name: _manifests(options, name) for name in names}
        for name, manifests in chosen.items():
            make(options.corpora / name, options.out / name, manifests)
            clips = read_manifest(options.out / name / FILES[1]).select("adapt").clips
            print(f"{options.out / name}: {len(clips)} clips to adapt to")
    except (MifuseError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def _manifests(options: argparse.Namespace, name: str) -> dict[str, list[Clip]]:
    """The manifests of a corpus that change."""
    target = read_manifest(options.corpora / name / FILES[1]).clips
    if options.nameless:
        return {FILES[1]: nameless(target)}
    if options.most:
        return {FILES[1]: mostly(target, options.most, options.share)}
    wrong, *pair = options.exchange
    if name != wrong:
        return {}
    source = read_manifest(options.corpora / name / FILES[0]).clips
    return {FILES[0]: exchanged(source, *pair), FILES[1]: exchanged(target, *pair)}


if __name__ == "__main__":
    sys.exit(main())
