"""The streams that follow each other in an Ogg file; decoders read the first one and end there."""

from __future__ import annotations

import os
from typing import BinaryIO

from mifuse_runtime.mpeg import View

HEADER, SEGMENTS, BEGINS = 27, 26, 2  # bytes of a page's header, where its number of lengths is; flag


def chained(file: BinaryIO) -> list[View]:
    """Each stream of an open Ogg file as a file of its own; none: it has one, or is no Ogg."""
    size = file.seek(0, os.SEEK_END)
    at, starts, inside = 0, list[int](), True
    while at + HEADER <= size:
        file.seek(at)
        head = file.read(HEADER + 255)
        if head[:4] != b"OggS":
            break
        # The streams of one file that run beside each other all begin before any goes on.
        if head[5] & BEGINS and inside:
            starts.append(at)
        inside = not head[5] & BEGINS
        lengths = head[HEADER : HEADER + head[SEGMENTS]]
        at += HEADER + head[SEGMENTS] + sum(lengths)
    ends = [*starts[1:], size]
    return [View(file, *part) for part in zip(starts, ends, strict=True)] if len(starts) > 1 else []
