"""Downloads that are cut and go on, bounded in size, and held to a hash.

pooch (1.9, BSD-3-Clause) was looked at: it begins anew where a download was cut, has no bound, and
brings requests and its four packages for what is left, a comparison of hashes.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mifuse_runtime
from mifuse.errors import MifuseError

BLOCK = 1 << 18  # bytes
PATIENCE = 30.0  # seconds without a byte until a connection counts as cut
TRIES = 6  # connections without a new byte, one after the other
WAIT = 1.0  # seconds before the second; doubled each time
SPARE = 1 << 26  # bytes that stay free on the disk
Tick = Callable[[int, int | None], object]  # bytes so far, bytes in all if known


def download(
    url: str, file: Path, *, limit: int, size: int | None = None, tick: Tick = lambda *_: None
) -> Path:
    """Fetch `url` into `file`, going on where `file`.part was cut, if the server still has the same.

    Args:
        limit: bytes above which it is stopped.
        size: bytes that it must have; None: what the server says, if it does.
        tick: called after each block.

    Raises:
        MifuseError: no connection, another size, or a server that says no; what came is kept for later.
    """
    part, note = file.with_name(f"{file.name}.part"), file.with_name(f"{file.name}.part.json")
    failures, wait = 0, WAIT
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _connection(url, part, note, limit=limit, size=size, tick=tick):
                break
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429, 500, 502, 503, 504):
                raise MifuseError(f"{url}: the server says {error.code} {error.reason}") from error
            reason = f"the server says {error.code}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error))
        failures = failures + 1 if (part.stat().st_size if part.exists() else 0) <= before else 0
        if failures >= TRIES:
            rest = f"run it again to go on with {part}" if part.exists() else "run it again later"
            raise MifuseError(f"{url}: {reason}; {rest}")
        time.sleep(wait if failures else 0)
        wait = min(2 * wait, 30) if failures else WAIT
    part.replace(file)
    note.unlink(missing_ok=True)
    return file


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: urllib.request.Request, *rest: Any) -> urllib.request.Request | None:
        target = str(rest[-1])
        if req.full_url.startswith("https:") and not target.startswith("https:"):
            raise MifuseError(f"{req.full_url} leads to {target}, which is not encrypted: it is not followed")
        return super().redirect_request(req, *rest)


def _connection(url: str, part: Path, note: Path, *, limit: int, size: int | None, tick: Tick) -> bool:
    """One connection's worth of `part`; whether it is whole now."""
    if not url.startswith(("https://", "http://")):
        raise MifuseError(f"{url}: only http and https are fetched")
    held = _held(url, part, note)
    have = part.stat().st_size if held else 0
    headers = {"User-Agent": f"mifuse/{mifuse_runtime.__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": held}
    opener = urllib.request.build_opener(_Redirects)
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310, its scheme is looked at above
        answer = opener.open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if error.code == 416 and whole == str(have):  # nothing is left to be fetched
            return True
        if error.code == 416:
            part.unlink(missing_ok=True)
            return False
        raise
    with answer:
        have = (
            have if answer.status == 206 else 0
        )  # 200: another file by now, or a server that knows no ranges
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        _check_size(url, total, limit, size, part)
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        note.write_text(json.dumps({"url": url, "mark": mark}), encoding="utf-8")
        with part.open("ab" if have else "wb") as out:
            while block := answer.read(BLOCK):
                have += len(block)
                if have > limit:
                    part.unlink()
                    raise MifuseError(f"{url} is larger than {limit} bytes: it is not what it was; not kept")
                out.write(block)
                tick(have, total)
    return have >= total if total is not None else size is None or have >= size


def _held(url: str, part: Path, note: Path) -> str:
    """What the server called the file that `part` is the beginning of; empty: begin anew."""
    try:
        held = json.loads(note.read_text(encoding="utf-8"))
        mark = str(held["mark"]) if held["url"] == url and part.is_file() else ""
    except (OSError, ValueError, KeyError, TypeError):
        mark = ""
    return "" if mark.startswith("W/") else mark  # a weak one says nothing of bytes


def _check_size(url: str, total: int | None, limit: int, size: int | None, part: Path) -> None:
    if total is not None and size is not None and total != size:
        raise MifuseError(
            f"{url} has {total} bytes where {size} are expected: it is not the file that it was"
        )
    if total is not None and total > limit:
        raise MifuseError(f"{url} has {total} bytes, more than {limit}: it is not the file that it was")
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if total is not None and free + have < total + SPARE:
        raise MifuseError(
            f"{part.parent} has {free / 1e9:.1f} GB free, {(total - have) / 1e9:.1f} GB are needed"
        )


def digests(file: Path) -> dict[str, str]:
    """SHA-256 and MD5 of a file; MD5, where a publisher has no other, is against damage, not forgers."""
    found = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            for digest in found.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in found.items()}
