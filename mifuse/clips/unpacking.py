"""Archives of corpora, unpacked within bounds: no path out of the folder, no link, no bomb."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from mifuse.errors import MifuseError

LARGEST = 10  # times the archive's own size, unpacked: audio does not shrink more
FILES = 500_000
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)
POINTER = b"version https://git-lfs"  # what a repository's archive may hold in the place of a recording


def unpack(archive: Path, folder: Path) -> int:
    """Write the files of a ZIP or TAR archive below `folder`, which is new; how many they are.

    Every file's checksum is looked at, so that a cut or damaged archive is an error.

    Raises:
        MifuseError: it is damaged, no archive, too large, or leads out of the folder.
    """
    most = LARGEST * archive.stat().st_size + (1 << 20)
    count = written = 0
    try:
        for name, content in _members(archive):
            target = folder / _inside(archive, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                written += _copy(content, out, most - written, archive)
            count += 1
            if count > FILES:
                raise MifuseError(f"{archive} holds more than {FILES} files: it is no corpus")
            with target.open("rb") as file:
                if file.read(len(POINTER)) == POINTER:
                    raise MifuseError(
                        f"{archive}: {name} is a pointer of Git LFS, not a recording: "
                        "clone the repository with git-lfs, then `mifuse prepare` it"
                    )
    except FileExistsError as error:
        raise MifuseError(f"{archive} holds {error.filename} twice: it is not unpacked") from error
    except DAMAGE as error:
        raise MifuseError(f"{archive} is damaged ({error}): remove it and fetch it again") from error
    return count


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of the regular files."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir() and (entry.external_attr >> 28) in (0, 8):  # not a link
                    with opened.open(entry) as content:
                        yield entry.filename, content
        return
    if not tarfile.is_tarfile(archive):
        raise MifuseError(f"{archive} is neither a ZIP nor a TAR archive: did the server send a page?")
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.isreg() and (extracted := tar.extractfile(member)):
                yield member.name, extracted


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        raise MifuseError(f"{archive} holds {name!r}, which leads out of its folder: it is not unpacked")
    return path


def _copy(content: IO[bytes], out: IO[bytes], most: int, archive: Path) -> int:
    size = 0
    while block := content.read(1 << 20):
        size += len(block)
        if size > most:
            raise MifuseError(f"{archive} unpacks to more than {LARGEST} times its size: it is no corpus")
        out.write(block)
    return size
