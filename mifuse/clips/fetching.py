"""A public corpus on this disk: fetched, held to its hash, unpacked; what came is noted in `fetched.json`."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mifuse.clips.download import Tick, digests, download
from mifuse.clips.sources import Source, on_request
from mifuse.clips.unpacking import unpack
from mifuse.errors import MifuseError
from mifuse.files import whole_file

NOTE = "fetched.json"
RECORDINGS = "recordings"


def fetch(source: Source, folder: Path, *, url: str = "", tick: Tick = lambda *_: None) -> Path:
    """The folder of the recordings, below `folder`; done already where an earlier call came so far.

    Args:
        url: another address of the same archive, as of a mirror.
        tick: as of `download`.

    Raises:
        MifuseError: the corpus is given on request alone, or what came is not what it was.
    """
    if not source.url:
        raise MifuseError(on_request(source))
    recordings = folder / RECORDINGS
    if recordings.is_dir():
        return recordings
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{source.name}.archive"
    if not archive.exists():
        download(url or source.url, archive, limit=source.limit, size=source.size, tick=tick)
    found = digests(archive) | {"size": archive.stat().st_size}
    _compare(source, found, archive, folder / NOTE)
    part = folder / f".{RECORDINGS}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        unpack(archive, part)
        _note(source, url or source.url, found, folder / NOTE)
        part.rename(recordings)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    archive.unlink()
    return recordings


def _compare(source: Source, found: dict[str, Any], archive: Path, note: Path) -> None:
    """Hold what came to what is known of it, or to what came the first time; what differs is removed.

    Raises:
        MifuseError: it is another file.
    """
    known = {key: getattr(source, key) for key in ("size", "sha256", "md5")}
    where = "published"
    if not any(known.values()) and note.is_file():
        known = {key: value for key, value in _read(note).items() if key in found}
        where = f"noted in {note} at the first download"
    for key, value in known.items():
        if value and value != found[key]:
            archive.unlink()
            raise MifuseError(
                f"{source.name}: {key} is {found[key]}, {value} was {where}: what came is removed; fetch it "
                "again, and if that does not help ask on the page of the corpus what has changed"
            )


def _read(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MifuseError(f"{note} is not JSON ({error}): remove it to take what comes now") from error
    return found if isinstance(found, dict) else {}


def _note(source: Source, url: str, found: dict[str, Any], note: Path) -> None:
    """Terms and citation stay beside the recordings; so do size and hashes."""
    facts = {key: getattr(source, key) for key in ("name", "title", "licence", "page", "citation", "known")}
    facts |= {"url": url, **found, "fetched": datetime.now(timezone.utc).strftime("%Y-%m-%d")}
    with whole_file(note) as part:
        part.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
