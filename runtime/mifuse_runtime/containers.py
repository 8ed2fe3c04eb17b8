"""Where the samples lie in a WAV, RF64, W64, AIFF or AU file, and how they are coded.

The lengths that headers declare are checked against what is there: programs that write to a pipe, or are
ended before they close the file, leave wrong ones. `web/mifuse/containers.js` reads the same.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mifuse_runtime.codings import width
from mifuse_runtime.errors import AudioError

CUT = "copy or record it again"
MORE = "audio follows in a second chunk data, which most programs pass over: save it again as one"
CHUNKS = 100_000  # of a file, at most
SLACK = 1024  # bytes that a declared length may be off, if they are not much of it
_W64 = bytes.fromhex("2e91cf11a5d628db04c10000")  # behind `riff`
_EXTENSIBLE = 0xFFFE
_TAGS = {(1, 1): "u1", (1, 2): "i2", (1, 3): "i3", (1, 4): "i4", (3, 4): "f4", (3, 8): "f8"}
_TAGS |= {(6, 1): "alaw", (7, 1): "mulaw"}  # tag and bytes of a sample
_AIFC = {b"NONE": "", b"twos": "", b"in24": "", b"in32": "", b"sowt": "<", b"raw ": "u1"}
_AIFC |= {b"fl32": ">f4", b"FL32": ">f4", b"fl64": ">f8", b"FL64": ">f8"}
_AIFC |= {b"ulaw": "mulaw", b"ULAW": "mulaw", b"alaw": "alaw", b"ALAW": "alaw"}
_AU = {1: "mulaw", 2: "i1", 3: ">i2", 4: ">i3", 5: ">i4", 6: ">f4", 7: ">f8", 27: "alaw"}


@dataclass(frozen=True)
class Layout:
    """The samples of a file: `length` bytes from `start` on; `coding` None: another must decode it.

    `declared` is where the header has the length, and how long it says that the audio is.
    """

    rate: int
    channels: int
    coding: str | None
    start: int
    length: int
    declared: tuple[int, int] = (0, 0)

    @property
    def frame(self) -> int:
        """Bytes of a sample of each channel."""
        return width(self.coding or "u1") * self.channels


def layout(file: BinaryIO) -> Layout | None:
    """Of an open file that can seek; None for what is none of these containers.

    Raises:
        AudioError: the file is cut short, or has no audio.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(40)
    kind, form = head[:4], head[8:12]
    if kind in (b"RIFF", b"RIFX", b"RF64", b"BW64") and form == b"WAVE":
        return _wav(file, size, ">" if kind == b"RIFX" else "<", 12)
    if kind == b"riff" and head[4:16] == _W64:
        return _wav(file, size, "<", 40, w64=True)
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _aiff(file, size)
    if kind in (b".snd", b"dns."):
        return _au(file, size, ">" if kind == b".snd" else "<")
    return None


def _wav(file: BinaryIO, size: int, order: str, at: int, w64: bool = False) -> Layout | None:
    found: tuple[int, int, int, int] | None = None
    audio: Layout | None = None
    long = 0  # what a chunk ds64 says of the length of the audio
    for name, start, length in _chunks(file, size, order, at, w64):
        if name == b"fmt ":
            found = _format(file.read(min(length, 40)), order)
        elif name == b"ds64" and length >= 24:
            long = struct.unpack("<8xQ", file.read(16))[0]
        elif name == b"data" and audio and audio.length:
            if length:
                raise AudioError(MORE)
        elif name == b"data" and found:
            tag, channels, rate, each = found
            coding = _TAGS.get((tag, each))
            if coding and len(coding) == 2 and coding != "u1":
                coding = order + coding
            declared = long if length == 0xFFFFFFFF and long else length
            there = _there(file, start, declared, size)
            audio = Layout(rate, channels, coding, start, there, (start - (8 if w64 else 4), declared))
            if there != length:
                return audio  # nobody knows where the next chunk is
    if audio is None:
        raise AudioError(f"the file is cut short, it has no audio data: {CUT}")
    return audio


def _chunks(file: BinaryIO, size: int, order: str, at: int, w64: bool) -> Iterator[tuple[bytes, int, int]]:
    """Name, where its content starts and how long it says that it is, of each chunk from `at` on."""
    header = 24 if w64 else 8
    for _ in range(CHUNKS):
        file.seek(at)
        head = file.read(header)
        if len(head) < header:
            return
        length = struct.unpack(f"{order}I", head[4:8])[0]
        if w64:
            length = max(0, struct.unpack("<q", head[16:])[0] - header)
        yield head[:4], at + header, length
        at = _next(file, at + header, length, 8 if w64 else 2)


def _format(body: bytes, order: str) -> tuple[int, int, int, int] | None:
    """Tag, channels, rate and bytes of a sample."""
    if len(body) < 16:
        return None
    tag, channels, rate, _, block, bits = struct.unpack(f"{order}HHIIHH", body[:16])
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = struct.unpack(f"{order}H", body[24:26])[0]
    # 24 bits may sit in four bytes, 12 in two: the block says it.
    whole = block // channels if channels and block % channels == 0 else 0
    each = whole if whole and bits <= 8 * whole <= 64 else -(-bits // 8)
    return tag, channels, rate, each


def _aiff(file: BinaryIO, size: int) -> Layout | None:
    at, found = 12, None
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack(">4sI", file.read(8))
        if name == b"COMM":
            body = file.read(min(length, 24))
            if len(body) < 18:
                break
            channels, _, bits, power, mantissa = struct.unpack(">hIhHQ", body[:18])
            rate = mantissa * 2.0 ** (min(power & 0x7FFF, 16446) - 16446)
            own = _AIFC.get(body[18:22] or b"NONE")
            coding = f"{own or '>'}i{-(-bits // 8)}" if own in ("", "<") else own
            coding = "i1" if coding in (">i1", "<i1") else coding
            found = (
                channels,
                round(min(rate, 1e9)),
                coding if own is None or width(coding or "u1") <= 8 else None,
            )
        elif name == b"SSND" and found:
            offset = struct.unpack(">I", (file.read(8) + bytes(4))[:4])[0]
            start, declared = at + 16 + offset, max(0, length - 8 - offset)
            there = _there(file, start, declared, size)
            return Layout(found[1], max(0, found[0]), found[2], start, there, (at + 4, declared))
        at = _next(file, at + 8, length, 2)
    raise AudioError(f"the file is cut short, it has no audio data: {CUT}")


def _au(file: BinaryIO, size: int, order: str) -> Layout | None:
    file.seek(4)
    head = file.read(20)
    if len(head) < 20:
        raise AudioError(f"the file is cut short, it has no audio data: {CUT}")
    start, declared, encoding, rate, channels = struct.unpack(f"{order}5I", head)
    coding = _AU.get(encoding)
    if coding and coding[0] == ">":
        coding = order + coding[1:]
    there = _there(file, start, declared, size)
    return Layout(rate, channels, coding, start, there, (8, declared))


def _next(file: BinaryIO, start: int, length: int, multiple: int) -> int:
    """Where the next chunk begins: behind padding, unless a writer forgot it."""
    end = start + length
    padded = -(-end // multiple) * multiple
    if multiple == 2 and padded > end:
        file.seek(end)
        return end if _printable(file.read(4)) else padded
    return padded


def _printable(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _there(file: BinaryIO, start: int, declared: int, size: int) -> int:
    """Bytes of audio from `start` on, of a file of `size` bytes whose header declares some.

    Raises:
        AudioError: much is missing.
    """
    left = max(0, size - start)
    if declared - left > min(SLACK, max(64, declared // 64)) and not _unknown(declared):
        raise AudioError(f"the file is cut short ({left} of {declared} bytes of audio): {CUT}")
    if declared >= left:
        return left
    if 0 < left - declared <= SLACK:
        file.seek(start + declared)
        return declared if declared else (0 if _chunk(file, left) else left)
    file.seek(start + declared + declared % 2)
    return declared if _chunk(file, left - declared) else left


def _unknown(declared: int) -> bool:
    """Whether a length is one that programs write when they cannot know it: the largest, or nearly."""
    return 0x7FFF0000 <= declared < 0x80010000 or 0xFFFF0000 <= declared <= 0xFFFFFFFF or declared >= 1 << 47


def _chunk(file: BinaryIO, left: int) -> bool:
    """Whether a chunk begins here that fits in the bytes left: no audio then."""
    head = file.read(8)
    if len(head) < 8 or not _printable(head[:4]):
        return False
    return min(int.from_bytes(head[4:], "little"), int.from_bytes(head[4:], "big")) <= left
