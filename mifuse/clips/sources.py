"""Where public corpora are had: address, size, hash, licence and citation, all in `sources.json`."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from mifuse.errors import MifuseError

FILE = Path(__file__).with_name("sources.json")


@dataclass(frozen=True)
class Source:
    """Of a corpus; the name is that of `mifuse prepare --corpus`."""

    name: str
    title: str
    licence: str
    page: str  # where it is described, and its licence can be read
    citation: str
    url: str = ""  # of the archive; empty: it is given on request alone
    ask: str = ""  # how to get it then
    size: int | None = None  # bytes of the archive; None: not known here
    most: int = 0  # bytes that it cannot have, where `size` is not known
    md5: str = ""
    sha256: str = ""
    known: str = ""  # where size and hash come from, or that they are not known

    @property
    def limit(self) -> int:
        """Bytes above which a download is stopped."""
        return self.size or self.most


def sources() -> dict[str, Source]:
    """All of them, by name."""
    return {
        name: Source(name, **fields) for name, fields in json.loads(FILE.read_text(encoding="utf-8")).items()
    }


def source(name: str) -> Source:
    """One of them.

    Raises:
        MifuseError: there is none of that name.
    """
    known = sources()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise MifuseError(f"{name} is no corpus that can be fetched: {hint}")
    return known[name]


def on_request(source: Source) -> str:
    """How to get a corpus that has no address."""
    return (
        f"{source.name} cannot be fetched: {source.ask} ({source.page}). Then "
        f"`mifuse prepare FOLDER --corpus {source.name} -o …` makes the manifest"
    )
