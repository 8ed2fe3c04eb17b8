"""The streams that follow each other in an Ogg file; decoders read the first one and end there."""

from __future__ import annotations

import os
from typing import BinaryIO

from mifuse_runtime.mpeg import View

PAGE, BLOCK = b"OggS", 1 << 16  # how pages begin; bytes that are searched at a time
HEADER, SEGMENTS, BEGINS = 27, 26, 2  # bytes of a page's header, where its number of lengths is; flag


def chained(file: BinaryIO) -> list[View]:
    """Each stream of an open Ogg file as a file of its own; none: it has one, or is no Ogg."""
    size = file.seek(0, os.SEEK_END)
    at, starts, inside = 0, list[int](), True
    while at + HEADER <= size:
        file.seek(at)
        head = file.read(HEADER + 255)
        if head[:4] != PAGE:
            if at == 0:
                break
            at = _page(file, at, size)
            continue
        # The streams of one file that run beside each other all begin before any goes on.
        if head[5] & BEGINS and inside:
            starts.append(at)
        inside = not head[5] & BEGINS
        lengths = head[HEADER : HEADER + head[SEGMENTS]]
        at += HEADER + head[SEGMENTS] + sum(lengths)
    ends = [*starts[1:], size]
    return [View(file, *part) for part in zip(starts, ends, strict=True)] if len(starts) > 1 else []


def _page(file: BinaryIO, at: int, size: int) -> int:
    """Where the next page begins, behind bytes that are none; the file's end where there is none."""
    while at < size:
        file.seek(at)
        block = file.read(BLOCK)
        found = block.find(PAGE)
        if found >= 0:
            return at + found
        at += max(1, len(block) - len(PAGE) + 1)
    return size
