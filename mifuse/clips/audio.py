"""Audio files to 16 kHz mono samples, and the cache that decodes each clip once."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mifuse.clips.fingerprint import fingerprint
from mifuse.clips.keys import VERSIONS
from mifuse.clips.manifest import Clip
from mifuse.clips.wal import use_write_ahead_log
from mifuse.errors import AudioError
from mifuse.files import whole_file
from mifuse_runtime.audio import Channel, Mixer, peak, trim_silence
from mifuse_runtime.files import opened
from mifuse_runtime.resample import PIECE

SAMPLE_RATE = 16_000  # Hz, of everything behind `read_audio`
LONGEST = 14_400.0  # s, of one clip: 920 MB; longer recordings are cut by start and end

Samples = npt.NDArray[np.float32]

# The head of a .npy file of one row of int16. `numpy.load` has Python parse it, and trusts it.
_HEAD = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<i2', 'fortran_order': False, 'shape': \(([1-9]\d{0,9}),\), \} *\n",
    re.S,
)
_MARK = 16  # bytes behind the samples of a stored clip: their hash
_TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process ends
_LOGGER = logging.getLogger(__name__)


def read_audio(
    path: Path | str, start: float | None = None, end: float | None = None, channel: Channel = "mix"
) -> Samples:
    """Decode a file, or its part from `start` to `end` seconds, to mono at `SAMPLE_RATE`.

    What the device reads, by the same code (`mifuse_runtime.files`); resampled by soxr, which is faster.

    Returns:
        (n,) float32, n >= 1; [-1, 1] unless the file itself holds larger values.

    Raises:
        AudioError: missing, empty, cut short or not audio; no samples; NaN or infinite values.
    """
    # Grows in place: a list of blocks and their concatenation would be two copies of an hour.
    samples = bytearray()
    for block in read_blocks(path, start, end, channel):
        samples += np.ascontiguousarray(block, np.float32).data
    return np.frombuffer(samples, np.float32)


def read_blocks(
    path: Path | str,
    start: float | None = None,
    end: float | None = None,
    channel: Channel = "mix",
    longest: float | None = None,
) -> Iterator[Samples]:
    """What `read_audio` reads, in blocks (n,) as they are decoded.

    Args:
        longest: seconds; a longer part is refused. None: `LONGEST`.

    Raises:
        AudioError: as `read_audio`, when the block is asked for.
    """
    import soxr

    mixer, size, given = Mixer(channel), 0, 0
    with opened(path, start or 0.0, end) as sound:
        resampler = soxr.ResampleStream(sound.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for block in sound.blocks:
            size = _counted(size, block, sound.rate, longest)
            mono = mixer.mono(block)
            ready = mono if sound.rate == SAMPLE_RATE else resampler.resample_chunk(mono)
            given += len(ready)
            yield ready
        if sound.rate != SAMPLE_RATE:
            ready = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            # A handful of frames at a high rate can be less than one sample here.
            yield ready if given + len(ready) else mono[:1]


def _counted(size: int, block: npt.NDArray[np.float32], rate: int, longest: float | None = None) -> int:
    """Frames so far; a file can hold a year of silence in a few kB."""
    size += len(block)
    longest = longest or LONGEST
    if size > longest * rate:
        raise AudioError(f"the audio is longer than {longest:.0f} s: give start and end, or cut it")
    return size


def duration(clip: Clip) -> float:
    """Seconds of a clip, from the header of its file where that says it.

    Raises:
        AudioError: as `read_audio`, as far as the header shows.
    """
    with opened(clip.path) as sound:
        frames = sound.frames
        if frames is None:
            frames = functools.reduce(lambda n, block: _counted(n, block, sound.rate), sound.blocks, 0)
        seconds = frames / max(1, sound.rate)
    end = seconds if clip.end is None else min(clip.end, seconds)
    return max(0.0, float(end - (clip.start or 0.0)))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """$MIFUSE_CACHE, ~/.cache/mifuse, or where there is no home a folder of this user among temporary files.

    Raises:
        AudioError: that folder is another user's.
    """
    if given := os.environ.get("MIFUSE_CACHE"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "mifuse"
    except RuntimeError:  # neither HOME nor an entry in passwd: containers, systemd's DynamicUser
        user = os.getuid() if hasattr(os, "getuid") else 0
        folder = Path(tempfile.gettempdir(), f"mifuse-{user}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != user or folder.is_symlink():
            raise AudioError(
                f"no home for the cache, and {folder} is another user's: set MIFUSE_CACHE"
            ) from None
        return folder


class AudioCache:
    """Decoded clips on disk: int16, 16 kHz mono, named by content, least recently used ones dropped.

    Safe for several processes and against kill -9: files appear under their final name whole or not at all.
    A folder that cannot be written is read, and what is new goes into a temporary one, with a warning.

    Args:
        folder: where to keep it; None is $MIFUSE_CACHE or ~/.cache/mifuse.
        max_bytes: size at which the least recently used clips go.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = 20 << 30) -> None:
        self.folder = Path(folder or cache_folder()) / f"audio-{VERSIONS['audio']}"
        self._read_only: Path | None = None
        if not _writable(self.folder):
            self._read_only, self.folder = self.folder, _instead_of(self.folder)
        self.max_bytes = max_bytes
        self._connections: dict[tuple[int, int], sqlite3.Connection] = {}
        self._known: dict[Path, tuple[int, int, str, str]] = {}  # size, time, fingerprint, hash
        self._unscanned: float = float("inf")  # bytes written since the folder was last measured

    def __reduce__(self) -> tuple[type[AudioCache], tuple[Path, int]]:
        return AudioCache, (self.folder.parent, self.max_bytes)

    def hash(self, clip: Clip) -> str:
        """Hex SHA-256 of the clip's content: the file's bytes, with start and end when it has them.

        Of a file with unchanged size and modification time some blocks are read again, not all.
        """
        digest = self._file_hash(clip.path)
        if clip.start is None and clip.end is None and clip.channel is None:
            return digest
        part = f"{digest} {clip.start} {clip.end}" + (f" {clip.channel}" if clip.channel else "")
        return hashlib.sha256(part.encode()).hexdigest()

    def samples(self, clip: Clip, trim: bool = True) -> Samples:
        """Samples of a clip, (n,) float32 at 16 kHz in [-1, 1], n >= 1; without its silent ends if `trim`.

        Louder values than 1 lower the whole clip rather than clip it.

        Raises:
            AudioError: as `read_audio`, or the cache cannot be written.
        """
        digest = self.hash(clip)
        stored = self._load(digest)
        if stored is None:
            stored = _whole(read_audio(clip.path, clip.start, clip.end, clip.channel or "mix"))
            self._store(digest, stored)
        samples: Samples = np.multiply(stored, np.float32(1 / 32767), dtype=np.float32)
        return trim_silence(samples, SAMPLE_RATE) if trim else samples

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise AudioError(
                f"cannot use the audio cache {self.folder} ({reason}): "
                "make room, delete it, or set MIFUSE_CACHE to another folder"
            ) from error

    def _file(self, digest: str) -> Path:
        return _named(self.folder, digest)

    def _load(self, digest: str) -> npt.NDArray[np.int16] | None:
        file = self._file(digest)
        try:
            # The modification time says when a clip was last used; an hour's resolution spares writes.
            if time.time() - file.stat().st_mtime > 3600:
                os.utime(file)
        except FileNotFoundError:
            return _stored(_named(self._read_only, digest)) if self._read_only else None
        found = _stored(file)
        if found is None:
            file.unlink(missing_ok=True)
        return found

    def _store(self, digest: str, stored: npt.NDArray[np.int16]) -> None:
        file = self._file(digest)
        with self._writing():
            file.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.save(content, stored)
            with whole_file(file) as partial:
                partial.write_bytes(content.getvalue() + _mark(content.getvalue()))
        self._unscanned += stored.nbytes
        # Other processes write too: measuring again after a twentieth of the bound keeps the excess small.
        if self._unscanned > self.max_bytes / 20:
            self._evict()

    def _evict(self) -> None:
        """Delete the least recently used clips until a tenth of the room is free."""
        self._unscanned = 0
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        if total <= self.max_bytes:
            return
        for _, size, file in entries:
            if total <= self.max_bytes * 0.9:
                break
            file.unlink(missing_ok=True)
            total -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, bytes and file of each clip; forgotten temporary files are removed."""
        for file in self.folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):  # evicted by another process
                stat = file.stat()
                if file.suffix == ".npy":
                    yield stat.st_mtime, stat.st_size, file
                elif time.time() - stat.st_mtime > 3600:
                    file.unlink()

    def _file_hash(self, path: Path) -> str:
        try:
            stat, seen = path.stat(), fingerprint(path)
        except OSError as error:
            raise AudioError(
                f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
            ) from error
        state = (stat.st_size, stat.st_mtime_ns, seen)
        known = self._known.get(path) or self._lookup(path)
        if known is None or known[:3] != state:
            known = (*state, _sha256(path))
            # A file changed a moment ago can change again within the clock's resolution.
            if 0 <= time.time() - stat.st_mtime < 2:
                return known[3]
            self._remember(path, known)
        self._known[path] = known
        return known[3]

    def _index(self) -> sqlite3.Connection:
        """This process's and thread's connection. One from before a fork may neither be used nor closed."""
        me = (os.getpid(), threading.get_ident())
        if me not in self._connections:
            self.folder.mkdir(parents=True, exist_ok=True)
            index = sqlite3.connect(self.folder / "index.db", timeout=60, isolation_level=None)
            use_write_ahead_log(index, 60)
            index.execute("PRAGMA synchronous = OFF")
            index.execute(
                "CREATE TABLE IF NOT EXISTS known "
                "(path BLOB PRIMARY KEY, size INT, mtime INT, fingerprint TEXT, hash TEXT)"
            )
            self._connections[me] = index
        return self._connections[me]

    def _lookup(self, path: Path) -> tuple[int, int, str, str] | None:
        query = "SELECT size, mtime, fingerprint, hash FROM known WHERE path = ?"
        with self._writing():
            row: tuple[int, int, str, str] | None
            row = self._index().execute(query, [os.fsencode(path)]).fetchone()
        return row if row and re.fullmatch("[0-9a-f]{64}", str(row[3])) else None

    def _remember(self, path: Path, known: tuple[int, int, str, str]) -> None:
        with self._writing():
            self._index().execute("REPLACE INTO known VALUES (?, ?, ?, ?, ?)", [os.fsencode(path), *known])


def _whole(samples: Samples) -> npt.NDArray[np.int16]:
    """Samples (n,) as they are stored; in pieces, for an hour would be three copies more."""
    scale = np.float32(32767 / max(1.0, peak(samples)))
    stored = np.empty(samples.size, np.int16)
    for at in range(0, samples.size, PIECE):
        stored[at : at + PIECE] = np.round(samples[at : at + PIECE] * scale)
    return stored


def _named(folder: Path, digest: str) -> Path:
    return folder / digest[:2] / f"{digest}.npy"


def _stored(file: Path) -> npt.NDArray[np.int16] | None:
    """The samples in a file; None of one that a crash of the machine cut short, or that was changed."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    head = _HEAD.match(content)
    samples = content[head.end() : -_MARK] if head else b""
    if not head or len(samples) != 2 * int(head[1]) or _mark(content[:-_MARK]) != content[-_MARK:]:
        return None
    return np.frombuffer(samples, np.int16)


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or it where it is not yet."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return not there.is_dir() or os.access(there, os.W_OK | os.X_OK)  # a file there is an error of its own


@functools.cache
def _instead_of(folder: Path) -> Path:
    """A temporary folder in place of one that cannot be written, until this process ends; said once.

    Raises:
        AudioError: there is nowhere to write.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix="mifuse-")
    except OSError as error:
        raise AudioError(
            f"cannot use the audio cache {folder} (it cannot be written, and there is no temporary folder): "
            "set MIFUSE_CACHE to a folder that can be written"
        ) from error
    _TEMPORARY.append(temporary)
    _LOGGER.warning(
        "the audio cache %s cannot be written: what is new is kept in %s until the end of this run; "
        "MIFUSE_CACHE names another folder",
        *(folder, temporary.name),
    )
    return Path(temporary.name) / folder.name


def _mark(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_MARK).digest()
