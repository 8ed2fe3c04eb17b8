"""What is computed of each clip, on disk in pieces of some thousand clips: once, whoever asks.

A piece is named by the content of its clips and by what was computed. Processes that want the same pieces,
those of `accelerate launch` among them, share the work: each takes pieces that no other is busy with.
Killed, a run loses the piece that it was at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.fingerprint import is_marked, mark
from mifuse.clips.manifest import Clip
from mifuse.errors import MifuseError
from mifuse.files import whole_file

T = TypeVar("T")

SHARD = 4096  # clips a piece. Each one open is a file handle, of which a process often has 1,024


class Joined:
    """Arrays of several files as if they were one, (N, ...), memory-mapped."""

    def __init__(self, files: Sequence[NDArray[Any]]) -> None:
        self.files = files
        self.starts = np.cumsum([0, *map(len, files)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Rows that lie within one file, as those of one clip do."""
        file = int(np.searchsorted(self.starts, rows.start, side="right")) - 1
        first = self.starts[file]
        return self.files[file][rows.start - first : rows.stop - first]

    def in_memory(self) -> NDArray[Any]:
        """All rows."""
        return np.concatenate(self.files)


def in_shards(
    clips: Sequence[Clip],
    cache: AudioCache,
    kind: str,
    key: str,
    *,
    read: Callable[[Path], T | None],
    write: Callable[[Sequence[Clip], Path], object],
) -> list[T]:
    """The pieces of `clips`, in order, those that are not on disk computed first.

    Args:
        kind: folder in the cache.
        key: names what is computed; any change of it is another piece.
        read: a piece from its file name (without suffix), None when it is not there whole.
        write: computes a piece and leaves it under that name.

    Raises:
        MifuseError: what `write` raises, or a piece cannot be read after it was written.
    """
    from filelock import FileLock, Timeout

    folder = cache.folder / kind
    locks = cache.folder / "locks"
    for needed in (folder, locks):
        needed.mkdir(parents=True, exist_ok=True)
    parts = [clips[start : start + SHARD] for start in range(0, len(clips), SHARD)]
    stems = [folder / _name(part, cache, key) for part in parts]
    pieces = [read(stem) for stem in stems]
    # First what nobody is busy with, then the rest, waiting for it.
    for timeout in (0, -1):
        for i, (part, stem) in enumerate(zip(parts, stems, strict=True)):
            if pieces[i] is not None:
                continue
            try:
                with FileLock(locks / stem.name, timeout=timeout):
                    pieces[i] = read(stem)
                    if pieces[i] is None:
                        write(part, stem)
                        pieces[i] = read(stem)
            except Timeout:
                continue
    whole = [piece for piece in pieces if piece is not None]
    if len(whole) < len(parts):
        raise MifuseError(f"{folder} was changed while it was read: delete it and try again")
    return whole


def _name(clips: Sequence[Clip], cache: AudioCache, key: str) -> str:
    digest = hashlib.sha256(key.encode())
    for clip in clips:
        digest.update(cache.hash(clip).encode())
    return digest.hexdigest()[:32]


def table(
    clips: Sequence[Clip],
    cache: AudioCache,
    kind: str,
    key: str,
    compute: Callable[[Sequence[Clip]], NDArray[Any]],
) -> Joined:
    """One row a clip, (N, ...); arguments as those of `in_shards`.

    Args:
        compute: rows of some of the clips.
    """

    def write(part: Sequence[Clip], stem: Path) -> None:
        with whole_file(stem.with_suffix(".npy")) as partial, partial.open("wb") as file:
            np.save(file, compute(part))
        mark(stem, stem.with_suffix(".npy"))

    pieces = in_shards(clips, cache, kind, key, read=_read, write=write)
    if sum(map(len, pieces)) != len(clips):
        raise MifuseError(f"{cache.folder / kind} holds rows of other clips: delete it and try again")
    return Joined(pieces)


def _read(stem: Path) -> NDArray[Any] | None:
    """The rows, if they are as they were written; of a file that may have gigabytes not all is read."""
    file = stem.with_suffix(".npy")
    try:
        if not is_marked(stem, file):
            return None
        rows: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or cut short by a crash of the machine
        return None
    return rows if rows.dtype.kind == "f" and rows.ndim else None
