"""Who speaks in a call: the turns of one channel, grouped by the embeddings of their voices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip
from mifuse.voices.embedding import voice_embeddings
from mifuse.voices.grouping import numbered

Bar = Callable[[Iterable[list[int]]], Iterable[list[int]]]
# Height of Ward's tree above which two groups are two voices. `python -m benchmarks.turns` prints how often
# that is right: lower, moods of one speaker become speakers; higher, two of one sex become one.
APART = 1.4


def by_voice(clips: Sequence[Clip], cache: AudioCache | None = None, bar: Bar = iter) -> tuple[Clip, ...]:
    """The clips with a speaker for each turn of a call: whose channel it is, "voice" and a number.

    Turns are clips with a start. Voices are numbered within a channel, as they come; voice 1 of two calls may
    be two people. Clips that are whole recordings keep their speaker.

    Args:
        bar: wraps the turns of one channel after the other, for a progress bar.

    Raises:
        AudioError: a clip cannot be read.
    """
    cache = cache or AudioCache()
    calls: dict[tuple[str, str | None], list[int]] = {}
    for row, clip in enumerate(clips):
        if clip.start is not None:
            calls.setdefault((clip.name, clip.channel), []).append(row)
    found = list(clips)
    for rows in bar(list(calls.values())):
        turns = [clips[row] for row in rows]
        for row, clip, voice in zip(
            rows, turns, voices_of_turns(voice_embeddings(turns, cache).in_memory()), strict=True
        ):
            whose = clip.speaker or clip.path.with_suffix("").name
            found[row] = replace(clip, speaker=f"{whose} voice {voice}")
    return tuple(found)


def voices_of_turns(embeddings: NDArray[np.float64]) -> list[int]:
    """Number of each turn's voice, from 1 in the order that they come; embeddings (N, D) of unit length."""
    if len(embeddings) < 2:
        return [1] * len(embeddings)
    from scipy.cluster.hierarchy import fcluster, linkage

    return numbered(fcluster(linkage(embeddings, "ward"), APART, "distance").tolist())
