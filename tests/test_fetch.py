"""`mifuse fetch` against a server on loopback that cuts, has no ranges and sends wrong files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.clips import download, fetching, unpacking
from mifuse.clips.corpora import CORPORA
from mifuse.clips.manifest import read_manifest
from mifuse.clips.sources import Source, sources
from mifuse.errors import MifuseError

NAMES = [
    f"{word}/SM{n}_F1_{word[0]}0{n}.wav" for word in ("Angry", "Happy", "Neutral", "Sad") for n in (1, 2)
]


def clip(seed: int = 0) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).normal(0, 0.1, 8_000)
    soundfile.write(file, noise, 16_000, format="WAV")
    return file.getvalue()


def zipped(names: list[str], content: bytes | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for seed, name in enumerate(names):
            archive.writestr(f"URDU-Dataset-master/{name}", clip(seed) if content is None else content)
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """Hands out `body`; what it does wrong is set by tests."""

    body, mark, ranges, says_length = b"", '"a"', True, True
    cuts: list[int]  # bytes after which a connection is cut, one an entry
    codes: list[int]  # statuses that come first
    redirect = ""
    asked: list[dict[str, str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(dict(self.headers))
        if server.codes:
            self.send_error(server.codes.pop(0))
            return
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and server.ranges and self.headers.get("If-Range") == server.mark:
            start = int(wanted[1])
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        rest = server.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", server.mark)
        if server.says_length:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: server.cuts.pop(0)] if server.cuts else rest)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "WAIT", 0.001)
    monkeypatch.setattr(download, "BLOCK", 1000)
    with Server(("127.0.0.1", 0), Handler) as running:
        running.body, running.cuts, running.codes, running.asked = zipped(NAMES), [], [], []
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def run(server: Server, out: Path, *more: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["fetch", "urdu", "-o", str(out), "--url", server.url, "--yes", *more])
    assert result.exit_code == code, result.output
    return result


def test_from_its_makers_to_a_manifest(server: Server, tmp_path: Path) -> None:
    result = run(server, tmp_path / "urdu")
    assert "licence: none is in the repository" in result.stderr and "cite:" in result.stderr
    manifest = read_manifest(tmp_path / "urdu" / "manifest.csv")
    assert sorted({clip.label for clip in manifest.clips}) == ["angry", "happy", "neutral", "sad"]
    assert len(manifest) == len(NAMES)
    noted = json.loads((tmp_path / "urdu" / "fetched.json").read_text())
    assert noted["sha256"] == hashlib.sha256(server.body).hexdigest()
    assert noted["size"] == len(server.body) and "Latif" in noted["citation"]
    assert sorted(file.name for file in (tmp_path / "urdu").iterdir()) == [
        *("fetched.json", "manifest.csv", "recordings"),
    ]
    assert "is there already" in run(server, tmp_path / "urdu", code=1).stderr


def test_the_licence_must_be_agreed_to(server: Server, tmp_path: Path) -> None:
    words = ["fetch", "urdu", "-o", str(tmp_path / "urdu"), "--url", server.url]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert "--yes says that you agree" in refused.stderr
    assert server.asked == [] and not (tmp_path / "urdu").exists()


def test_where_to_ask_for_those_given_on_request(tmp_path: Path) -> None:
    for name in ("iemocap", "msp-improv", "msp-podcast"):
        refused = CliRunner().invoke(main, ["fetch", name, "-o", str(tmp_path / name)])
        assert refused.exit_code == 1
        assert "https://" in refused.stderr and f"--corpus {name}" in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert "did you mean ravdess" in CliRunner().invoke(main, ["fetch", "ravdes"]).stderr
    listed = CliRunner().invoke(main, ["fetch", "--list"]).stdout
    assert all(name in listed for name in sources())


def test_a_cut_download_goes_on(server: Server, tmp_path: Path) -> None:
    server.cuts, server.codes = [9_000, 1, 20_000], [503, 429]
    run(server, tmp_path / "urdu")
    ranges = [headers.get("Range") for headers in server.asked]
    assert ranges == [None, None, None, "bytes=9000-", "bytes=9001-", "bytes=29001-"]


@pytest.mark.parametrize("says_length", [True, False])
def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path, says_length: bool) -> None:
    server.ranges, server.says_length = False, says_length
    server.cuts = [9_000] if says_length else []
    run(server, tmp_path / "urdu")
    assert len(server.asked) == (2 if says_length else 1)


def test_another_file_by_now_begins_anew(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    server.cuts = [9_000, 0]
    assert "run it again to go on" in run(server, tmp_path / "urdu", code=1).stderr
    part = next((tmp_path / "urdu").glob("*.part"))
    assert part.stat().st_size == 9_000
    server.mark, server.body = '"b"', zipped(NAMES[:4])
    run(server, tmp_path / "urdu")
    assert len(read_manifest(tmp_path / "urdu" / "manifest.csv")) == 4


def test_a_server_that_is_away_and_one_that_says_no(server: Server, tmp_path: Path) -> None:
    server.codes = [404]
    assert "the server says 404" in run(server, tmp_path / "a", code=1).stderr
    server.codes = [500] * 20
    assert "the server says 500; run it again" in run(server, tmp_path / "b", code=1).stderr
    assert len(server.asked) == 1 + download.TRIES
    assert "again later" in run(server, tmp_path / "b", "--url", "http://127.0.0.1:9/", code=1).stderr


def fetched(server: Server, folder: Path, **known: Any) -> Path:
    source = replace(sources()["urdu"], url=server.url, **known)
    return fetching.fetch(source, folder)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({"size": 5}, "bytes where 5 are expected"),
        ({"most": 1000}, "more than 1000: it is not the file"),
        ({"sha256": "00" * 32}, "sha256 is .* 00"),
        ({"md5": "00" * 16}, "what came is removed"),
        ({"url": "file:///etc/passwd"}, "only http and https"),
    ],
)
def test_what_is_not_what_it_was_is_refused(
    server: Server, tmp_path: Path, known: dict[str, Any], says: str
) -> None:
    source = replace(sources()["urdu"], **({"url": server.url} | known))
    with pytest.raises(MifuseError, match=says):
        fetching.fetch(source, tmp_path)
    assert not (tmp_path / "recordings").exists()
    assert [file for file in tmp_path.iterdir() if file.suffix == ".archive"] == []


def test_a_stream_without_length_is_bounded_and_nothing_stays(server: Server, tmp_path: Path) -> None:
    server.says_length = False
    with pytest.raises(MifuseError, match="larger than 5000 bytes"):
        fetched(server, tmp_path, most=5_000)
    assert not list(tmp_path.glob("*.part"))


def test_the_first_downloads_hash_is_held_to(server: Server, tmp_path: Path) -> None:
    recordings = fetched(server, tmp_path)
    recordings.rename(tmp_path / "elsewhere")
    server.body = zipped(NAMES[:6])
    with pytest.raises(MifuseError, match=r"noted in .*fetched.json at the first download"):
        fetched(server, tmp_path)


def test_encryption_is_not_left(server: Server, tmp_path: Path) -> None:
    server.redirect = server.url + "?there"
    request = download.urllib.request.Request("https://example.org/a.zip")
    with pytest.raises(MifuseError, match="not encrypted"):
        download._Redirects().redirect_request(request, None, 302, "Found", {}, server.url)


def tarred(**members: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return file.getvalue()


def test_links_are_left_and_nothing_leads_out(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tarred(**{"x/a.wav": clip()}))
    assert unpacking.unpack(tmp_path / "a.tar.gz", tmp_path / "out") == 1
    assert [file.name for file in (tmp_path / "out").rglob("*") if file.is_file()] == ["a.wav"]
    for name in ("../a.wav", "/tmp/a.wav", "..\\a.wav", "C:/a.wav"):
        (tmp_path / "b").write_bytes(tarred(**{name: clip()}))
        with pytest.raises(MifuseError, match="leads out of its folder"):
            unpacking.unpack(tmp_path / "b", tmp_path / "out")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>not found</html>", "neither a ZIP nor a TAR"),
        (zipped(NAMES)[:-30_000], "neither a ZIP|damaged"),
        (zipped(["a.wav"], b"version https://git-lfs.github.com/spec/v1\noid x"), "pointer of Git LFS"),
        (tarred(**{"a.wav": b"\0" * 30_000_000}), "more than 10 times its size"),
    ],
)
def test_what_is_no_corpus(server: Server, tmp_path: Path, body: bytes, says: str) -> None:
    server.body = body
    with pytest.raises(MifuseError, match=says):
        fetched(server, tmp_path)
    assert not (tmp_path / "recordings").exists() and not (tmp_path / "fetched.json").exists()


def test_damage_within_is_found(server: Server, tmp_path: Path) -> None:
    damaged = bytearray(server.body)
    damaged[len(damaged) // 2] ^= 255
    server.body = bytes(damaged)
    with pytest.raises(MifuseError, match="damaged"):
        fetched(server, tmp_path)


def test_the_data_file_is_whole() -> None:
    for name, one in sources().items():
        assert isinstance(one, Source)
        assert name in CORPORA
        assert one.title and one.licence and one.citation and one.page.startswith("https://")
        assert bool(one.ask) != bool(one.url)
        assert not one.url or (one.limit and one.known and one.url.startswith("https://"))
        assert not one.sha256 or re.fullmatch("[0-9a-f]{64}", one.sha256)
        assert not one.md5 or re.fullmatch("[0-9a-f]{32}", one.md5)
