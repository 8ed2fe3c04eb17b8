"""The parts of an MP3 stream. Its frames are counted: decoders go by what the first one declares.

A stream may begin anywhere, have no count of its frames, or be several files joined to one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBPS[2, 3] = _KBPS[2, 2]  # MPEG 2 and 2.5, layers II and III
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
PROBE = 1 << 16  # bytes within which a stream that begins in the middle must have a frame
ALIKE = 4  # frames in a row that make an MP3 of what has no other sign of one
READ = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Part:
    """Frames of one encoding from byte `start` to `end`, behind a tag of `tag` bytes with their count.

    `declared` is that count: None without a tag, 0 where a tag does not say.
    """

    start: int
    end: int
    tag: int
    frames: int
    declared: int | None
    length: int  # samples of a frame
    rate: int


def parts(file: BinaryIO) -> list[Part]:
    """The encodings that follow each other in an open file; none: it is no MP3."""
    size = file.seek(0, os.SEEK_END)
    window = _Window(file, size)
    at, found = window.after_id3(0), list[Part]()
    known = at > 0
    while at < size:
        begin = _first_frame(window, at, min(size, at + PROBE), 1 if known and found else ALIKE)
        if begin is None:
            break
        part = _part(window, begin)
        if part.frames or part.tag:
            found.append(part)
        at = window.after_id3(part.end)
        known = True
    return found


def _part(window: _Window, start: int) -> Part:
    """Frames from `start` on, to the next tag, what is no frame, or the end."""
    first = window.frame(start)
    assert first is not None
    length, samples, rate, layer = first
    declared = window.declared(start, length)
    tag = 0 if declared is None else length
    at, frames = start + tag, 0
    while frame := window.frame(at):
        length, _, same, kind = frame
        if (same, kind) != (rate, layer) or at + length > window.size:
            break
        if frames and window.declared(at, length) is not None:
            break  # another file begins
        at += length
        frames += 1
    return Part(start, at, tag, frames, declared, samples, rate)


def _first_frame(window: _Window, at: int, end: int, alike: int) -> int | None:
    """Where the first of some frames in a row begins."""
    while at < end:
        at = window.find_sync(at, end)
        if at < 0:
            return None
        next_, same = at, 0
        while same < alike and (frame := window.frame(next_)) and next_ + frame[0] <= window.size:
            next_ += frame[0]
            same += 1
            if next_ >= window.size:
                break
        if same and (same >= alike or next_ >= window.size):
            return at
        at += 1
    return None


class _Window:
    """Reads bytes of a file at any place, a megabyte at a time."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size
        self._at, self._held = 0, b""

    def get(self, at: int, count: int) -> bytes:
        if not self._at <= at <= self._at + len(self._held) - count:
            self._file.seek(at)
            self._at, self._held = at, self._file.read(READ)
        return self._held[at - self._at : at - self._at + count]

    def find_sync(self, at: int, end: int) -> int:
        while at < end:
            held = self.get(at, min(PROBE, end - at))
            place = held.find(b"\xff")
            if place < 0:
                at += max(1, len(held))
            elif self.frame(at + place):
                return at + place
            else:
                at += place + 1
        return -1

    def frame(self, at: int) -> tuple[int, int, int, int] | None:
        """Bytes, samples, rate and layer of the frame at a place."""
        head = self.get(at, 4)
        if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
            return None
        version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
        index, rate = head[2] >> 4, head[2] >> 2 & 3
        if version == 1 or layer == 4 or index in (0, 15) or rate == 3:
            return None
        kbps = _KBPS[1 if version == 3 else 2, layer][index - 1]
        hertz, padding = _RATES[version][rate], head[2] >> 1 & 1
        if layer == 1:
            return (12_000 * kbps // hertz + padding) * 4, 384, hertz, layer
        samples = 576 if layer == 3 and version != 3 else 1152
        return 125 * samples * kbps // hertz + padding, samples, hertz, layer

    def declared(self, at: int, length: int) -> int | None:
        """The count of frames in the tag (Xing, Info or VBRI) that this frame is; None if it is sound."""
        body = self.get(at, min(length, 64))
        for mark in (b"Xing", b"Info"):
            place = body.find(mark, 4, 44)
            if place > 0:
                counted = len(body) >= place + 12 and body[place + 7] & 1
                return int.from_bytes(body[place + 8 : place + 12], "big") if counted else 0
        if body[36:40] == b"VBRI":
            return int.from_bytes(body[50:54], "big")
        return None

    def after_id3(self, at: int) -> int:
        """Behind the tags (ID3v2, ID3v1, APE) that begin at a place."""
        while True:
            head = self.get(at, 10)
            if head[:3] == b"ID3" and len(head) == 10:
                at += 10 + sum(
                    (byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
                )
            elif head[:3] == b"TAG" and at + 128 <= self.size:
                at += 128
            else:
                return at


class View(io.RawIOBase):
    """Bytes `start` to `end` of a file, behind some bytes of ours, as a file of its own."""

    def __init__(self, file: BinaryIO, start: int, end: int, first: bytes = b"") -> None:
        self._file, self._first = file, first
        self._start, self._size = start - len(first), end - start + len(first)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        raw = self._first[self._at : self._at + len(buffer)]
        if not raw and self._at < self._size:
            self._file.seek(self._start + self._at)
            raw = self._file.read(min(len(buffer), self._size - self._at))
        buffer[: len(raw)] = raw
        self._at += len(raw)
        return len(raw)


def views(file: BinaryIO, found: list[Part]) -> Iterator[View]:
    """Each part as a file of its own.

    Where no tag declares the frames, one of ours does: libsndfile reads no further than the length that it
    makes of the bytes and the rate of the first frame, 60 % of a clip with a variable rate.
    """
    for part in found:
        if part.declared and part.frames <= part.declared:
            yield View(file, part.start, part.end)
        else:
            start = part.start + part.tag
            file.seek(start)
            yield View(file, start, part.end, _tag(file.read(4), part.frames))


def _tag(header: bytes, frames: int) -> bytes:
    """A frame of layer III without sound that declares the number of frames behind it."""
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    if layer != 3:
        return b""
    stereo = header[3] >> 6 != 3
    side = (32 if stereo else 17) if version == 3 else (17 if stereo else 9)
    index = 9  # enough bytes for the tag, at every rate
    length = 125 * (1152 if version == 3 else 576) * _KBPS[1 if version == 3 else 2, 3][index - 1]
    length //= _RATES[version][header[2] >> 2 & 3]
    head = bytes([0xFF, header[1] | 1, index << 4 | header[2] & 12, header[3]])
    body = head + bytes(side) + b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return body + bytes(length - len(body))
