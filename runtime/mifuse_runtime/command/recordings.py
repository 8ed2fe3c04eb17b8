"""One recording of `predict` or `serve`: a clip, or a timeline of what is longer than the model's window."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mifuse_runtime import codings
from mifuse_runtime.audio import Channel, Floats, Mixer, channel_index, checked
from mifuse_runtime.decision import Prediction
from mifuse_runtime.errors import AudioError
from mifuse_runtime.files import is_file, opened, spooled
from mifuse_runtime.recognizer import Recognizer
from mifuse_runtime.resample import PIECE, Resampler
from mifuse_runtime.sound import Sound
from mifuse_runtime.speaker import Speaker
from mifuse_runtime.timeline import LONGEST, Timeline, timeline

EACH = "each"  # one answer for each channel


@dataclass(frozen=True)
class Raw:
    """The form of raw samples."""

    rate: int = 16_000
    channels: int = 1
    encoding: str = "int16"


@dataclass(frozen=True)
class Limits:
    """What a recording of other programs may be."""

    longest: float | None = None  # seconds
    highest: int | None = None  # Hz, of a file; filters of higher, odd rates take a second and 200 MB to make


@dataclass(frozen=True)
class Found:
    """What was found in a recording, or in one channel of it."""

    path: str
    channel: Channel
    answer: Prediction | Timeline


@contextmanager
def sound_of(source: str | Path | BinaryIO, raw: Raw | None, highest: int | None = None) -> Iterator[Sound]:
    """A file's sound; what is open may also be raw samples, where it does not begin as a file does."""
    if isinstance(source, (str, Path)):
        with opened(source, highest=highest) as sound:
            yield sound
        return
    if source.seekable():
        source.seek(0)
    stream = _Ahead(source)
    if raw and not is_file(stream.head):
        yield Sound(raw.rate, raw.channels, None, _raw_blocks(stream, raw))
        return
    file: Any = source if source.seekable() else stream
    with opened(file, highest=highest) as sound:
        yield sound


class _Ahead:
    """A stream whose first bytes are known before they are read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.head = stream, stream.read(16)
        self._rest = self.head

    def read(self, count: int) -> bytes:
        first, self._rest = self._rest[:count], self._rest[count:]
        return first + self._stream.read(count - len(first))


def _raw_blocks(stream: _Ahead, raw: Raw) -> Iterator[Floats]:
    # 8 bytes a channel hold whole frames of every encoding: only the last piece can be cut.
    while taken := stream.read(PIECE * max(1, raw.channels)):
        yield checked(codings.pcm(taken, raw.encoding, raw.channels))


def recordings(
    recognizer: Recognizer,
    source: str | Path | BinaryIO,
    channel: Channel,
    raw: Raw | None = None,
    *,
    whole: bool = False,
    speaker: Speaker | None = None,
    limits: Limits | None = None,
) -> Iterator[Found]:
    """What is in a recording, `-` is stdin; with the channel `each`, one after the other.

    Args:
        raw: the form of stdin or an open file that begins as no file does; None: there is no such thing.
        whole: a timeline of short recordings, too.
        limits: what is refused; None takes everything.

    Raises:
        AudioError: as `read_audio`.
    """
    path = str(source)
    if source == "-":
        stdin: BinaryIO = sys.stdin.buffer
        try:
            again = spooled(stdin) if channel == EACH else stdin
            for found in recordings(
                recognizer, again, channel, raw, whole=whole, speaker=speaker, limits=limits
            ):
                yield replace(found, path=path)
        except AudioError as error:
            raise AudioError(f"stdin: {error}") from error
        return
    channel, highest = _number(channel), limits.highest if limits else None
    if channel != EACH:
        with sound_of(source, raw, highest) as sound:
            yield Found(path, channel, _found(recognizer, sound, channel, whole, speaker, limits))
        return
    number, channels = 0, 1
    while number < channels:
        with sound_of(source, raw, highest) as sound:
            channels = sound.channels
            yield Found(path, number, _found(recognizer, sound, number, whole, speaker, limits))
        number += 1


def _found(  # noqa: PLR0917, one call site a line above
    recognizer: Recognizer,
    sound: Sound,
    channel: Channel,
    whole: bool,
    speaker: Speaker | None,
    limits: Limits | None,
) -> Prediction | Timeline:
    rate = recognizer.sample_rate
    blocks = _mono(sound, channel, rate, limits.longest if limits else None)
    begun: list[Floats] = []
    size = 0
    for block in blocks:
        begun.append(block)
        size += block.size
        if size > LONGEST * rate:
            return timeline(recognizer, chain(begun, blocks))
    samples = checked(np.concatenate(begun)) if begun else checked(np.zeros(0, np.float32))
    if not whole and (size <= recognizer.bundle.window * rate or speaker):
        return recognizer.predict(samples, speaker=speaker)
    found = timeline(recognizer, [samples])
    if whole or len(found.segments) != 1:
        return found
    # One utterance: what `predict` says of the clip.
    [segment], clip = found.segments, recognizer.predict(samples, gate=False)
    clip = replace(clip, start=segment.start, end=segment.end, speech=segment.speech)
    return Timeline(found.duration, (clip,), found.demo)


def _mono(sound: Sound, channel: Channel, rate: int, longest: float | None) -> Iterator[Floats]:
    """Blocks (n,) at `rate` Hz, of so many seconds at most."""
    resampler, mixer, size = Resampler(sound.rate, rate), Mixer(channel), 0
    for block in sound.blocks:
        size += len(block)
        if longest and size > longest * sound.rate:
            raise AudioError(f"the audio is longer than {longest:g} s")
        yield resampler.feed(mixer.mono(block))
    yield resampler.flush()


def chosen(channel: str, count: int) -> Sequence[Channel]:
    """Which of `count` channels are looked at one by one; `each` is all of them.

    Raises:
        AudioError: there is no such channel.
    """
    if channel == EACH:
        return range(count)
    index = channel_index(channel)
    if index is not None and index >= count:
        raise AudioError(f"there is no channel {channel}: there are {count}, counted from 0")
    return [_number(channel)]


def _number(channel: Channel) -> Channel:
    """A number that an option or a request has as text."""
    return int(channel) if isinstance(channel, str) and channel.isdecimal() else channel


def as_dict(found: Found, recognizer: Recognizer) -> dict[str, Any]:
    """A prediction's fields; for a timeline also `shares` and `segments`; `channel` where one was chosen."""
    from dataclasses import asdict

    answer = found.answer
    fields = answer.to_dict(recognizer.labels) if isinstance(answer, Timeline) else asdict(answer)
    return fields if found.channel == "mix" else {**fields, "channel": found.channel}
