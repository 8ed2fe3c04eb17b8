"""What is not read here: through soundfile (libsndfile), or through ffmpeg where it is installed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mifuse_runtime import codings
from mifuse_runtime.audio import Floats
from mifuse_runtime.containers import CUT, SLACK, Layout, layout
from mifuse_runtime.errors import AudioError
from mifuse_runtime.mpeg import Part, View, parts, views
from mifuse_runtime.ogg import chained
from mifuse_runtime.resample import PIECE
from mifuse_runtime.sound import Sound

FFMPEG_SECONDS = 600  # after which a file is given up
MPEG_DELAY = 4 * 1152  # samples that an encoder of MP3 may add before and behind
FFMPEG_BYTES = 1 << 34  # of its output, 12 hours of 8 channels at 48 kHz
# What begins so, from byte 0 or 4 on, ffmpeg is asked for. Play lists name other files and hosts: never.
_FORMATS = {
    b"ftyp": "MPEG-4 audio or video (M4A, MP4, 3GP)",
    b"moov": "MPEG-4 audio or video",
    b"\x1a\x45\xdf\xa3": "WebM or Matroska",
    b"#!AMR": "AMR",
    b"\x30\x26\xb2\x75": "WMA or another Windows Media file",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"caff": "CAF",
    b"RIFF": "WAV in a coding that is not read here, or AVI",
    b"RIFX": "WAV",
    b"RF64": "WAV",
    b"riff": "W64",
    b"FORM": "AIFF",
    b".snd": "AU",
    b"MAC ": "Monkey's Audio",
    b"wvpk": "WavPack",
}
_DEMUXERS = "mov,matroska,amr,asf,flac,ogg,caf,wav,w64,aiff,au,ape,wv,mp3,aac,avi"
HINT = "convert it to WAV, or pip install soundfile for FLAC, OGG, MP3, or install ffmpeg"


def named(head: bytes) -> str | None:
    """The format that begins so, in words; None: none that a decoder here reads."""
    for mark, name in _FORMATS.items():
        if head.startswith(mark) or (mark in (b"ftyp", b"moov") and head[4:8] == mark):
            return name
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 in (0xE2, 0xE4, 0xE6)):
        return "MP3"
    return "AAC" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else None


def decoded(file: BinaryIO, found: Layout | None, start: float) -> Sound:
    """The sound of an open file that can seek, from `start` seconds on.

    `found`: where its audio lies, for what is in a container that is read here and a coding that is not.

    Raises:
        AudioError: no decoder that is installed reads it.
    """
    with contextlib.suppress(ImportError):
        import soundfile

        return _by_soundfile(soundfile, file, found, start)
    return _by_ffmpeg(file, start, None)


def _by_soundfile(soundfile: Any, file: BinaryIO, found: Layout | None, start: float) -> Sound:
    mpeg = parts(file) if found is None else []
    if mpeg:
        return _joined_mpeg(soundfile, file, mpeg, start)
    streams = chained(file)
    file.seek(0)
    if streams:
        return _joined(soundfile, file, streams, start, counted=False)
    try:
        sound = _unsought(soundfile, _declared(file, found) if found else file)
    except (soundfile.LibsndfileError, TypeError) as error:
        reason = getattr(error, "error_string", str(error)).strip(" .")
        if "malformed" in reason:  # of its own formats: what is cut or damaged is refused alike everywhere
            raise AudioError(f"cannot be decoded ({reason}): {CUT}") from error
        return _by_ffmpeg(file, start, reason)
    known = sound.frames if sound.frames < 1 << 48 else None  # a FLAC from a pipe has no length
    # libsndfile reads what is there of a file that is cut short, and only logs the sizes.
    for declared, actual in re.findall(r": (\d+) \(should be (\d+)\)", sound.extra_info if not found else ""):
        if int(actual) + SLACK < int(declared) < 0x7FFF0000:
            raise AudioError(f"the file is cut short ({actual} of {declared} bytes): {CUT}")
    blocks = _frames(soundfile, sound, round(start * sound.samplerate), known)
    return Sound(sound.samplerate, sound.channels, known, blocks)


def _unsought(soundfile: Any, file: BinaryIO) -> Any:
    """The file opened by libsndfile, without the seek that the package does after each read.

    It fails in a FLAC without length, and moves a little in MP3.
    """

    class Unsought(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

        @property
        def can_seek(self) -> bool:
            return bool(super().seekable())

    return Unsought(file)


def _declared(file: BinaryIO, found: Layout) -> BinaryIO:
    """The file, with the length of its audio put right where a writer left 0."""
    at, said = found.declared
    if said or not found.length:
        return file
    return io.BufferedReader(_Patched(file, at, found.length))


class _Patched(View):
    """A file whose four bytes from a place on are another number."""

    def __init__(self, file: BinaryIO, at: int, value: int) -> None:
        super().__init__(file, 0, file.seek(0, os.SEEK_END))
        self._place, self._value = at, value.to_bytes(4, "little")

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        begin = self._at
        count = super().readinto(buffer)
        for offset, byte in enumerate(self._value, self._place - begin):
            if 0 <= offset < count:
                buffer[offset] = byte
        return count


def _frames(soundfile: Any, sound: Any, first: int, known: int | None) -> Iterator[Floats]:
    """Blocks (n, channels) until nothing comes; refused when that is earlier than the file says."""
    size = max(1, PIECE // sound.channels)
    skipped = position = 0
    # MP3 within a WAV counts what the encoder put in front, which the decoder leaves out.
    slack = MPEG_DELAY if sound.subtype.startswith("MPEG") else 0
    with sound:
        try:
            if first and known and sound.can_seek:
                skipped = position = sound.seek(min(first, known))
            while True:
                # Not beyond what is declared at once: a tag behind it may be no audio.
                count = min(size, known - position) if known and position < known else size
                # Into memory that is cut to what was read: `blocks` yields all of it at an early end.
                block = sound.read(out=np.empty((count, sound.channels), np.float32))
                position += len(block)
                if not len(block):
                    break
                if position > first:
                    yield block[max(0, first - position + len(block)) :]
        except (soundfile.LibsndfileError, RuntimeError) as error:
            reason = getattr(error, "error_string", str(error)).strip(" .")
            if not known or position < known:
                raise AudioError(f"cannot be decoded ({reason}): {CUT}") from error
    if known and position < known - slack and position > skipped - 1:
        raise AudioError(f"the file is cut short ({position} of {known} frames): {CUT}")


def _joined_mpeg(soundfile: Any, file: BinaryIO, mpeg: list[Part], start: float) -> Sound:
    """The sound of an MP3, of all its parts one after the other."""
    for part in mpeg:
        if part.declared and part.frames < part.declared:
            raise AudioError(f"the file is cut short ({part.frames} of {part.declared} frames of MP3): {CUT}")
    counted = all(part.declared == part.frames for part in mpeg)
    return _joined(soundfile, file, views(file, mpeg), start, counted=counted)


def _joined(soundfile: Any, file: BinaryIO, pieces: Iterable[View], start: float, *, counted: bool) -> Sound:
    """The sound of files within a file; `counted`: whether each knows how long it is."""
    sounds = []
    for view in pieces:
        try:
            sounds.append(_unsought(soundfile, io.BufferedReader(view)))
        except soundfile.LibsndfileError as error:  # noqa: PERF203, it ends the loop
            reason = error.error_string.strip(" .")
            if not sounds:
                return _by_ffmpeg(file, start, reason)
            raise AudioError(
                f"part {len(sounds) + 1} of those joined cannot be decoded ({reason}): {CUT}"
            ) from error
    rates = sorted({(sound.samplerate, sound.channels) for sound in sounds})
    if len(rates) > 1:
        raise AudioError(
            f"joined of parts at {rates[0][0]} and {rates[1][0]} Hz, or of other channels: convert it"
        )
    known = sum(sound.frames for sound in sounds) if counted else None

    def blocks() -> Iterator[Floats]:
        left = round(start * rates[0][0])
        for sound in sounds:
            if counted and left >= sound.frames:
                left -= sound.frames
                continue
            if counted:
                yield from _frames(soundfile, sound, left, sound.frames)
                left = 0
                continue
            for block in _frames(soundfile, sound, 0, None):
                if len(block) > left:
                    yield block[left:]
                left = max(0, left - len(block))

    return Sound(*rates[0], known, blocks())


def _by_ffmpeg(file: BinaryIO, start: float, reason: str | None) -> Sound:
    """The sound of what ffmpeg reads; `reason` says why nothing else does."""
    file.seek(0)
    name = named(file.read(16))
    # What is in memory came from other programs (`serve`): theirs is not handed to a large decoder.
    program = None if isinstance(file, io.BytesIO) else shutil.which("ffmpeg")
    if name is None:
        raise AudioError(
            f"not an audio file that can be read ({reason}): {HINT}" if reason else f"not a WAV file: {HINT}"
        )
    if program is None:
        raise AudioError(
            f"{name}: {HINT}" if reason is None else f"{name}: convert it to WAV, or install ffmpeg"
        )
    process = _Ffmpeg(program, file)
    head = process.head()
    found = layout(io.BytesIO(head)) if head[:4] == b"RIFF" else None
    if found is None or found.coding != "<f4" or not found.channels:
        why = process.end() or reason
        raise AudioError(f"{name} that cannot be decoded ({why}): {CUT}, or convert it to WAV")
    blocks = process.blocks(head[found.start :], found.channels, round(start * found.rate))
    return Sound(found.rate, found.channels, None, blocks)


class _Ffmpeg:
    """A process that decodes one file to a WAV in float, read from a pipe."""

    def __init__(self, program: str, file: BinaryIO) -> None:
        self._copy = None if _is_path(file) else tempfile.NamedTemporaryFile(prefix="mifuse-")  # noqa: SIM115, closed in `end`
        path = Path(self._copy.name if self._copy else str(file.name)).resolve()
        if self._copy:
            file.seek(0)
            shutil.copyfileobj(file, self._copy, 1 << 20)
            self._copy.flush()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in `end`
        options = ["-nostdin", "-hide_banner", "-v", "error", "-xerror", "-threads", "1"]
        options += ["-protocol_whitelist", "file", "-format_whitelist", _DEMUXERS, "-i", f"file:{path}"]
        options += ["-map", "0:a:0", "-vn", "-sn", "-dn", "-fs", str(FFMPEG_BYTES), "-c:a", "pcm_f32le"]
        self._process = subprocess.Popen(
            [program, *options, "-f", "wav", "-bitexact", "pipe:1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._late = threading.Event()
        self._timer = threading.Timer(FFMPEG_SECONDS, self._stop)
        self._timer.daemon = True
        self._timer.start()

    def _stop(self) -> None:
        self._late.set()
        self._process.kill()

    def _read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(count)

    def head(self) -> bytes:
        """The header and, if it is short, some audio behind it; ended when there is none."""
        head = self._read(4096)
        if len(head) < 4096:
            self._process.wait()
        return head

    def end(self) -> str:
        """End the process; why it failed, empty if it did not."""
        self._timer.cancel()
        failed = self._process.poll()
        if failed is None:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.seek(0)
        lines = self._errors.read(4096).decode(errors="replace").strip().splitlines()
        self._errors.close()
        if self._copy:
            self._copy.close()
        if self._late.is_set():
            return f"it took more than {FFMPEG_SECONDS} s"
        return (lines[-1].rpartition(": ")[2] if lines else f"exit code {failed}") if failed else ""

    def blocks(self, begun: bytes, channels: int, first: int) -> Iterator[Floats]:
        """Blocks (n, channels) from frame `first` on."""
        failed = ""
        try:
            frame, left = 4 * channels, first
            size = max(1, PIECE // channels) * frame
            raw = begun + self._read(size - len(begun) % frame)
            while whole := len(raw) // frame:
                block = codings.floats(raw[: whole * frame], "<f4").reshape(-1, channels)
                if len(block) > left:
                    yield block[left:]
                left = max(0, left - len(block))
                raw = raw[whole * frame :] + self._read(size)
            self._process.wait()
        finally:
            failed = self.end()
        if failed:
            raise AudioError(f"cannot be decoded ({failed}): {CUT}")


def _is_path(file: BinaryIO) -> bool:
    name = getattr(file, "name", None)
    return isinstance(name, str) and os.path.isfile(name)  # noqa: PTH113, no Path for each file
