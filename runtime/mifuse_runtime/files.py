"""Audio files to samples: one idea of what a file holds, for the device and the workstation."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mifuse_runtime.audio import MAX_CHANNELS, Channel, Floats, Mixer, checked
from mifuse_runtime.codings import floats
from mifuse_runtime.containers import CUT, Layout, layout
from mifuse_runtime.errors import AudioError
from mifuse_runtime.resample import PIECE, RATES, Resampler
from mifuse_runtime.sound import Sound

_APPLE_DOUBLE = b"\x00\x05\x16\x07"
# A stream of bytes that begins so is a file, not raw samples.
_MARKS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff")
_MORE_MARKS = (b"#!AMR", b"\x1a\x45\xdf\xa3")
SUFFIXES = (
    ".wav",
    ".flac",
    ".aif",
    ".aiff",
    ".aifc",
    ".au",
    ".snd",
    ".caf",
    ".w64",
    ".rf64",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
)
FFMPEG_SUFFIXES = (
    ".m4a",
    ".mp4",
    ".webm",
    ".amr",
    ".3gp",
    ".aac",
    ".wma",
    ".mkv",
    ".mov",
    ".mka",
    ".avi",
    ".ape",
    ".wv",
)
LONGEST_SPOOL = 1 << 33  # bytes of a stream that is kept in a temporary file


def is_file(head: bytes) -> bool:
    """Whether bytes begin as an audio file does, not as raw samples."""
    return head.startswith(_MARKS + _MORE_MARKS) or head[4:8] == b"ftyp"


def named_file(path: Path) -> bool:
    """Whether ffmpeg is here and the file begins as one of its formats does."""
    from mifuse_runtime.decoders import named

    if not shutil.which("ffmpeg"):
        return False
    with path.open("rb") as file:
        return named(file.read(16)) is not None


def read_audio(
    source: str | Path | BinaryIO,
    sample_rate: int = 16_000,
    longest: float | None = None,
    channel: Channel = "mix",
    highest: int | None = None,
) -> Floats:
    """An audio file as mono float32 (n,) at `sample_rate` Hz; it is decoded in pieces, so memory stays small.

    WAV, AIFF, AU and W64 (PCM, float, mu-law, A-law) need nothing else; other formats need the package
    `soundfile`, or the program `ffmpeg`. See docs/audio.md.

    Args:
        source: path, or an open file.
        longest: seconds; a longer file is refused while it is decoded, however small it is compressed.
        channel: `mix` (their mean), `left`, `right` or a number from 0.
        highest: Hz; filters of higher, odd rates take a second and 200 MB to make.

    Raises:
        AudioError: missing, empty, cut short, too long, without that channel, or in another format.
    """
    with opened(source, highest=highest) as sound:
        resampler, mixer = Resampler(sound.rate, sample_rate), Mixer(channel)
        pieces, size = [], 0
        for block in sound.blocks:
            pieces.append(resampler.feed(mixer.mono(block)))
            size += len(block)
            if longest and size > longest * sound.rate:
                raise AudioError(f"the audio is longer than {longest:g} s")
        return checked(np.concatenate([*pieces, resampler.flush()]))


@contextmanager
def opened(
    source: str | Path | BinaryIO, start: float = 0.0, end: float | None = None, highest: int | None = None
) -> Iterator[Sound]:
    """What a file holds from `start` to `end` seconds; errors, also of reading the blocks, name the file.

    Args:
        highest: Hz; files of higher rates are refused.

    Raises:
        AudioError: as `read_audio`.
    """
    where = f"{source}: " if isinstance(source, (str, Path)) else ""
    try:
        if isinstance(source, (str, Path)):
            with Path(source).open("rb") as file:
                yield open_sound(file, start, end, highest)
        else:
            yield open_sound(source, start, end, highest)
    except OSError as error:
        raise AudioError(
            f"{where}cannot be read ({error.strerror or error}): check the path and its permissions"
        ) from error
    except AudioError as error:
        raise AudioError(f"{where}{error}") from error


def open_sound(
    file: BinaryIO, start: float = 0.0, end: float | None = None, highest: int | None = None
) -> Sound:
    """What an open file holds from `start` to `end` seconds; a pipe is kept in a temporary file.

    Raises:
        AudioError: as `read_audio`.
    """
    if not _seekable(file):
        file = spooled(file)
    file.seek(0)
    head = file.read(4)
    if not head:
        raise AudioError("the file is empty (0 bytes): copy it again or remove it")
    if head == _APPLE_DOUBLE:
        raise AudioError("notes of macOS on another file (AppleDouble), no audio: leave it out")
    found = layout(file)
    if found and found.coding:
        sound = Sound(
            found.rate,
            found.channels,
            found.length // max(1, found.frame),
            _blocks(file, found, round(start * found.rate)),
        )
    else:
        from mifuse_runtime.decoders import decoded

        sound = decoded(file, found, start)
    if not 1 <= sound.channels <= MAX_CHANNELS:
        raise AudioError(f"the file declares {sound.channels} channels: 1 to {MAX_CHANNELS} can be used")
    if sound.frames == 0:
        raise AudioError("the file holds no samples, the audio is empty: record it again or remove it")
    if highest and sound.rate > highest:
        raise AudioError(f"sample rate is {sound.rate}: up to {highest} Hz is served")
    if not RATES[0] <= sound.rate <= RATES[1]:  # a damaged header; at 1 Hz a minute would become a gigabyte
        raise AudioError(f"the sample rate is {sound.rate} Hz, which holds no speech: write the file again")
    return replace(sound, blocks=_finite(_part(sound, start, end), sound.rate, round(start * sound.rate)))


def _part(sound: Sound, start: float, end: float | None) -> Iterator[Floats]:
    """The blocks to `end`; one that is up to 0.1 s behind the file's is rounding."""
    position, rate = round(start * sound.rate), sound.rate
    last = None if end is None else round(end * rate)
    known = sound.frames
    if known is not None and (position >= known or (last or 0) > known + rate // 10):
        raise _no_part(start, end, known / rate)
    for block in sound.blocks:
        left = len(block) if last is None else last - position
        position += min(len(block), left)
        yield block[:left]
        if position == last:
            return
    if last is not None and position < last - rate // 10:
        raise _no_part(start, end, position / rate)


def _no_part(start: float, end: float | None, seconds: float) -> AudioError:
    part = f"from {start} s" if end is None else f"from {start} to {end} s"
    return AudioError(f"no audio {part}, the file has {seconds:.3f} s: correct start and end")


def _blocks(file: BinaryIO, found: Layout, first: int) -> Iterator[Floats]:
    assert found.coding is not None
    frame = found.frame
    size = max(1, PIECE // found.channels) * frame
    end = found.length // frame * frame
    file.seek(found.start + first * frame)
    for at in range(first * frame, end, size):
        raw = file.read(min(size, end - at))
        whole = len(raw) // frame * frame
        if whole:
            yield floats(raw[:whole], found.coding).reshape(-1, found.channels)
        if len(raw) < min(size, end - at):
            raise AudioError(
                f"the file became shorter while it was read ({at + len(raw)} of {end} bytes): {CUT}"
            )


def _finite(blocks: Iterator[Floats], rate: int, first: int) -> Iterator[Floats]:
    """The blocks, each checked; an error says where."""
    position = first
    for block in blocks:
        fine = np.isfinite(block).all(axis=1)
        if not fine.all():
            bad = position + int(fine.argmin())
            raise AudioError(f"NaN or infinite value at frame {bad} ({bad / rate:.3f} s): write it again")
        checked(block.reshape(-1))
        position += len(block)
        yield block
    if position == first:
        raise AudioError("there are no samples: the audio is empty")


def _seekable(file: BinaryIO) -> bool:
    try:
        return file.seekable() and file.seek(0, io.SEEK_CUR) >= 0
    except (OSError, AttributeError):
        return False


def spooled(file: BinaryIO) -> BinaryIO:
    """A stream as a file that can seek, which is gone when it is closed."""
    spool: BinaryIO = tempfile.TemporaryFile(prefix="mifuse-")  # noqa: SIM115, closed with its last reference
    size = 0
    while raw := file.read(1 << 20):
        size += len(raw)
        if size > LONGEST_SPOOL:
            raise AudioError(f"the stream is longer than {LONGEST_SPOOL >> 30} GiB")
        spool.write(raw)
    return spool
