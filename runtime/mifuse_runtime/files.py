"""Audio files, and raw samples in bytes, to what the recogniser takes."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.audio import MAX_CHANNELS, Floats, checked, mono
from mifuse_runtime.errors import AudioError
from mifuse_runtime.resample import PIECE, Resampler

ENCODINGS = {"int16": "<i2", "float32": "<f4"}  # of raw samples
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_DTYPES = {(_PCM, 8): "u1", (_PCM, 16): "<i2", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4", (_FLOAT, 64): "<f8"}


def pcm(raw: bytes, encoding: str, channels: int) -> NDArray[Any]:
    """Samples (n, channels) in the bytes of `int16` or `float32` audio, little-endian, channels interleaved.

    Raises:
        AudioError: another encoding, no such number of channels, or bytes that end within a frame.
    """
    if encoding not in ENCODINGS or not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{channels} channels of {encoding}: 1 to {MAX_CHANNELS} of {' or '.join(ENCODINGS)} can be used"
        )
    dtype = np.dtype(ENCODINGS[encoding])
    if len(raw) % (dtype.itemsize * channels):
        raise AudioError(f"{len(raw)} bytes are not whole frames of {channels} {encoding} samples")
    samples = np.frombuffer(raw, dtype).reshape(-1, channels)
    return samples.astype(dtype.newbyteorder("="), copy=False)


def read_audio(
    source: str | Path | BinaryIO, sample_rate: int = 16_000, longest: float | None = None
) -> Floats:
    """An audio file as mono float32 (n,) at `sample_rate` Hz; it is decoded in pieces, so memory stays small.

    WAV (PCM of 8 to 32 bits, float) needs nothing else; other formats need the package `soundfile`.

    Args:
        source: path, or an open file that can seek.
        longest: seconds; a longer file is refused while it is decoded, however small it is compressed.

    Raises:
        AudioError: missing, empty, cut short, too long, or in a format that cannot be read.
    """
    where = f"{source}: " if isinstance(source, (str, Path)) else ""
    try:
        with Path(source).open("rb") if isinstance(source, (str, Path)) else nullcontext(source) as file:
            found = _wav(file)
            rate, blocks = found if found is not None else _other(file)
            resampler = Resampler(rate, sample_rate)
            pieces, size = [], 0
            for block in blocks:
                pieces.append(resampler.feed(checked(mono(block))))
                size += len(block)
                if longest and size > longest * rate:
                    raise AudioError(f"the audio is longer than {longest:g} s")
        return checked(np.concatenate([*pieces, resampler.flush()]))
    except OSError as error:
        raise AudioError(f"{where}cannot be read ({error.strerror or error})") from error
    except AudioError as error:
        raise AudioError(f"{where}{error}") from error


def _wav(file: BinaryIO) -> tuple[int, Iterator[Floats]] | None:
    """Rate and blocks (n, channels) of a WAV file; None for what is not one, or is compressed."""
    head = file.read(12)
    if not head:
        raise AudioError("the file is empty (0 bytes)")
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    size = file.seek(0, os.SEEK_END)
    file.seek(len(head))
    tag = channels = rate = bits = 0
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"data" and tag:
            break
        body = file.read(min(length, 40)) if name == b"fmt " else b""
        if len(body) >= 16:
            tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if tag == _EXTENSIBLE and len(body) >= 26:
                tag = struct.unpack("<H", body[24:26])[0]
        file.seek(length + length % 2 - len(body), 1)
    else:
        raise AudioError("the file is cut short, it has no audio data: copy or record it again")
    if (tag, bits) not in {*_DTYPES, (_PCM, 24)} or not channels:
        return None
    left = size - file.tell()
    if length == 0xFFFFFFFF:  # written to a pipe, length unknown
        length = left
    if length > left:
        raise AudioError(
            f"the file is cut short ({left} of {length} bytes of audio): copy or record it again"
        )
    return rate, _wav_blocks(file, length, channels, tag, bits)


def _wav_blocks(file: BinaryIO, length: int, channels: int, tag: int, bits: int) -> Iterator[Floats]:
    frame = channels * bits // 8
    for start in range(0, length // frame, PIECE):
        raw = file.read(min(PIECE, length // frame - start) * frame)
        if bits == 24:
            wide = np.zeros((len(raw) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
            block = wide.reshape(-1).view("<i4")
        else:
            block = np.frombuffer(raw, _DTYPES[tag, bits])
        with np.errstate(over="ignore"):  # infinite samples are refused by the caller
            samples = block.astype(np.float32)
        if tag == _PCM:  # 24 bits sit in the upper three bytes of 32
            samples /= np.float32(2 ** (31 if bits == 24 else bits - 1))
            samples -= np.float32(bits == 8)  # 8 bits are unsigned
        yield samples.reshape(-1, channels)


def _other(file: BinaryIO) -> tuple[int, Iterator[Floats]]:
    """Rate and blocks (n, channels) of any file that libsndfile reads, if soundfile is installed."""
    try:
        import soundfile
    except ImportError as error:
        hint = "convert it to WAV, or pip install soundfile for FLAC, OGG, MP3"
        raise AudioError(f"not a PCM or float WAV file: {hint}") from error
    file.seek(0)
    try:
        sound = soundfile.SoundFile(file)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"not an audio file that can be read ({error.error_string})") from error

    def blocks() -> Iterator[Floats]:
        with sound:
            try:
                yield from sound.blocks(PIECE, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise AudioError(
                    f"cannot be decoded ({error.error_string}): copy or record it again"
                ) from error

    return sound.samplerate, blocks()
