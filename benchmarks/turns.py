"""How well `prepare --voices` finds who speaks: calls made of turns by one, two and three real speakers.

    MIFUSE_CORPORA=… python -m benchmarks.turns [--calls 60] [--speakers 8]

Each call has 5 to 13 acted turns of each speaker of one corpus. Printed are the pairs of turns of one speaker
that were put together, the pairs of two that were kept apart (%), and how many voices were found on the mean.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.voices.embedding import voice_embeddings
from mifuse.voices.turns import voices_of_turns

CORPORA = ("ravdess", "nemo", "koremo")
TURNS = (5, 14)  # of a speaker, the last not included


def speakers_of(corpus: Path, count: int, rng: np.random.Generator) -> list[list[Clip]]:
    """Clips of some speakers, drawn."""
    clips = {
        clip.path: clip
        for part in ("source", "target")
        for clip in read_manifest(corpus / f"{part}.csv").clips
    }
    found: dict[str | None, list[Clip]] = {}
    for clip in clips.values():
        found.setdefault(clip.speaker, []).append(clip)
    drawn = [found[name] for name in sorted(found, key=str)[:count]]
    return [[clips[row] for row in rng.permutation(len(clips))[: TURNS[1] - 1]] for clips in drawn]


def pairs(voices: Sequence[int], who: Sequence[int]) -> tuple[float, float]:
    """Shares of the pairs of one speaker that are together, and of two that are apart; 1 without any."""
    first, second = np.triu_indices(len(who), 1)
    same, together = (np.array(of)[first] == np.array(of)[second] for of in (who, voices))
    return float(together[same].mean()), float(1 - together[~same].mean()) if (~same).any() else 1.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=60, help="of each kind (60)")
    parser.add_argument("--speakers", type=int, default=8, help="of each corpus (8)")
    options = parser.parse_args()
    folder = os.environ.get("MIFUSE_CORPORA")
    if not folder:
        raise SystemExit("set MIFUSE_CORPORA to the folder of the corpora")
    rng, cache = np.random.default_rng(0), AudioCache()
    print("| corpus | speakers of a call | of one together | of two apart | voices found |")
    print("| --- | --: | --: | --: | --: |")
    for corpus in CORPORA:
        groups = speakers_of(Path(folder, corpus), options.speakers, rng)
        known = [voice_embeddings(clips, cache).in_memory() for clips in groups]
        for count in (1, 2, 3):
            rows = []
            for _ in range(options.calls):
                chosen = rng.choice(len(known), count, replace=False)
                turns = [
                    known[one][rng.permutation(len(known[one]))[: rng.integers(*TURNS)]] for one in chosen
                ]
                voices = voices_of_turns(np.concatenate(turns))
                rows.append(
                    (*pairs(voices, np.repeat(np.arange(count), list(map(len, turns))).tolist()), max(voices))
                )
            together, apart, found = np.mean(rows, axis=0)
            print(
                f"| {corpus} | {count} | {100 * together:.0f} | {100 * apart:.0f} | {found:.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
