"""Space on the store's disk for the answers that are on their way when it fills up."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO

BYTES = 8 << 20  # 100 open requests, whose answers and log take 40 kB each, twice


class Room:
    """A nameless file beside the store that is let go of when the disk is full. A kill lets go of it, too.

    >>> room = Room()
    >>> room.keep(Path(tempfile.gettempdir()))
    >>> room.give(), room.give()
    (True, False)
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def keep(self, folder: Path) -> None:
        """Take the space, if it is not held yet.

        Raises:
            OSError: there is none.
        """
        if self._file is not None:
            return
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - as long as the store is open
        try:
            for _ in range(BYTES >> 20):
                if file.write(os.urandom(1 << 20)) < 1 << 20:  # zeros may take no space
                    raise OSError("no space left")
        except OSError:
            file.close()
            raise
        self._file = file

    def give(self) -> bool:
        """Let go of the space; whether any was held."""
        held, self._file = self._file, None
        if held is not None:
            held.close()
        return held is not None
