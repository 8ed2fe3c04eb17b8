"""Which clips hold speech: the others are not learnt from, and nobody is paid for an opinion on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.keys import key
from mifuse.clips.manifest import NAMED, Clip
from mifuse.clips.shards import table
from mifuse.errors import AudioError
from mifuse_runtime import audio as runtime_audio
from mifuse_runtime import vad
from mifuse_runtime.settings import Settings

FEWEST = 0.3  # seconds of a clip that the gate can judge; of shorter real ones it refuses every fifth
_LOGGER = logging.getLogger(__name__)

Bar = Callable[[Iterable[Clip]], Iterable[Clip]]  # wraps the decoding of clips, for a progress bar


def spoken(
    clips: Sequence[Clip], cache: AudioCache, bar: Bar = iter, *, broken: bool = False
) -> tuple[Clip, ...]:
    """The clips in which somebody speaks, by the rule of `Recognizer.predict`; the log counts the others.

    Clips of less than 0.3 s are kept: nobody can tell.

    Args:
        broken: keep clips that cannot be read, for somebody who says so of each.

    Raises:
        AudioError: clips cannot be read, all of them named; or nobody speaks in any clip.
    """
    shares = speech_shares(clips, cache, bar)
    unread = np.isnan(shares)
    if unread.any() and not broken:
        raise AudioError(_reasons([clips[i] for i in np.flatnonzero(unread).tolist()], cache))
    silent = shares < Settings().speech
    named = ", ".join(clips[i].name for i in np.flatnonzero(silent)[:3].tolist())
    if silent.all():
        raise AudioError(f"nobody speaks in any of {len(clips)} clips ({named}): check the recordings")
    if silent.any():
        _LOGGER.warning(
            "%d of %d clips hold no speech and are left out (%s%s)",
            *(silent.sum(), len(clips), named, ", …" if silent.sum() > 3 else ""),
        )
    return tuple(clip for clip, none in zip(clips, silent, strict=True) if not none)


def speech_shares(clips: Sequence[Clip], cache: AudioCache, bar: Bar = iter) -> NDArray[np.float64]:
    """Share of each clip's frames that are speech, (N,), kept on disk; NaN where it cannot be read."""
    name = key(("audio", "trim"), [runtime_audio, vad], weights=vad.weights())

    def measure(part: Sequence[Clip]) -> NDArray[np.float64]:
        return np.array([_share(clip, cache) for clip in bar(part)])

    return table(clips, cache, "speech", name, measure).in_memory()


def _share(clip: Clip, cache: AudioCache) -> float:
    try:
        samples = cache.samples(clip)
        if len(samples) < FEWEST * SAMPLE_RATE:
            return 1.0
        return vad.speech_share(samples, Settings(), SAMPLE_RATE)
    except AudioError:
        return np.nan


def _reasons(clips: Sequence[Clip], cache: AudioCache) -> str:
    reasons = []
    for clip in clips[:NAMED]:
        try:
            cache.samples(clip)
        except AudioError as error:  # noqa: PERF203, each has a reason of its own
            reasons.append(str(error))
    more = f"; and {len(clips) - NAMED} more" if len(clips) > NAMED else ""
    return "; ".join(reasons) + more
