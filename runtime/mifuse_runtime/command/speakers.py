"""`--speaker FILE`: whose voice it is, kept from one call to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mifuse_runtime.recognizer import Recognizer
from mifuse_runtime.speaker import Speaker


@contextlib.contextmanager
def known(recognizer: Recognizer, file: str | None) -> Iterator[Speaker | None]:
    """The speaker of that file, which is written at the end, interrupted or not; nobody without a file."""
    if file is None:
        yield None
        return
    speaker = recognizer.speaker()
    if Path(file).exists():
        speaker.load(file)
    try:
        yield speaker
    finally:
        speaker.save(file)
