"""Long recordings to rows of a manifest: a channel each, split at their pauses."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from mifuse.clips.audio import SAMPLE_RATE, read_blocks
from mifuse.clips.folders import EACH
from mifuse.clips.manifest import Clip
from mifuse.errors import AudioError
from mifuse_runtime.audio import channel_index
from mifuse_runtime.files import opened
from mifuse_runtime.settings import Settings
from mifuse_runtime.timeline import LONGEST, SHORTEST, Segmenter

_LOGGER = logging.getLogger(__name__)

NO_SPEECH, UNREADABLE = "no speech", "cannot be read"  # reasons why a recording gives no row
LONGEST_CALL = 172_800.0  # s, of a recording: two days


def cut(
    clips: Iterable[Clip],
    left_out: Counter[str],
    channel: str | None = None,
    *,
    segment: bool = True,
) -> tuple[Clip, ...]:
    """The rows of recordings; what gives none is counted in `left_out`, a broken file with a warning.

    The same recordings give the same rows. A channel of several that `each` takes apart is one speaker:
    the recording's, or its name, with the number of the channel.

    Args:
        channel: `each`, or as of `mifuse_runtime.read_audio`; None: the mean of all.
        segment: split at pauses of 0.5 s what is longer than 15 s, into 1 to 15 s; else whole recordings.

    Raises:
        AudioError: there is no such channel in any recording.
    """
    if channel != EACH:
        channel_index(channel or "mix")
    rows: list[Clip] = []
    for clip in clips:
        try:
            parts = [list(_segments(one)) if segment else [one] for one in _channels(clip, channel)]
        except AudioError as error:
            _LOGGER.warning("%s", error)
            left_out[UNREADABLE] += 1
            continue
        rows += itertools.chain(*parts)
        left_out[NO_SPEECH] += sum(not part for part in parts)
    return tuple(rows)


def _channels(clip: Clip, channel: str | None) -> Iterator[Clip]:
    if channel != EACH:
        yield replace(clip, channel=None if channel == "mix" else channel)
        return
    with opened(clip.path) as sound:
        count = sound.channels
    whose = clip.speaker or clip.path.with_suffix("").name
    for number in range(count):
        speaker = f"{whose}-{number}" if count > 1 else clip.speaker
        yield replace(clip, channel=str(number), speaker=speaker)


def _segments(clip: Clip) -> Iterator[Clip]:
    """Parts of 1 to 15 s with speech; all of a clip that is no longer, if it has some."""
    segmenter = Segmenter(Settings(), SAMPLE_RATE, SHORTEST, LONGEST)
    parts: list[tuple[float, float]] = []

    blocks = read_blocks(clip.path, channel=clip.channel or "mix", longest=LONGEST_CALL)
    ended = itertools.chain.from_iterable(map(segmenter.feed, blocks))
    for first, samples, _ in itertools.chain(ended, segmenter.flush()):
        parts.append((first / SAMPLE_RATE, (first + samples.size) / SAMPLE_RATE))
    seconds = segmenter.taken / SAMPLE_RATE
    if seconds <= LONGEST:
        yield from [clip] * bool(parts)
        return
    for start, end in parts:
        # A single word stands between pauses of a second: there is room to either side of it.
        more = max(0.0, SHORTEST - (end - start)) / 2
        begin = min(max(0.0, start - more), seconds - SHORTEST)
        yield replace(clip, start=round(begin, 3), end=round(max(end + more, begin + SHORTEST), 3))
