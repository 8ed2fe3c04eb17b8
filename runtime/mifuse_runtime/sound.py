"""What a file holds, for every reader: its rate, its channels, and blocks of samples until nothing comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mifuse_runtime.audio import Floats


@dataclass(frozen=True)
class Sound:
    """Blocks (n, channels) of float32, n >= 1; `frames` is their sum, None where only reading shows it."""

    rate: int
    channels: int
    frames: int | None
    blocks: Iterator[Floats]
