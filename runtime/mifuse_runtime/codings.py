"""How samples are coded in bytes: PCM of any width and byte order, float, and the laws of telephony."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mifuse_runtime.audio import MAX_CHANNELS, Floats
from mifuse_runtime.errors import AudioError

# Of raw samples, as options and requests name them -> NumPy's type, or the law.
ENCODINGS = {"int16": "<i2", "float32": "<f4", "mulaw": "mulaw", "alaw": "alaw"}


def width(coding: str) -> int:
    """Bytes of a sample; a coding is `mulaw`, `alaw`, or a type as NumPy writes it, also `<i3` and `>i3`."""
    return int(coding[-1]) if coding[-1].isdigit() else 1


def floats(raw: bytes, coding: str) -> Floats:
    """Float32 (n,) in [-1, 1] from the bytes of n samples; float codings as they are.

    >>> floats(bytes([255, 128, 0]), "mulaw")
    array([ 0.        ,  0.98...,  -0.98...], dtype=float32)
    """
    if coding.endswith("law"):
        return _laws()[coding][np.frombuffer(raw, np.uint8)]
    kind, size = coding[-2], width(coding)
    if size == 3:  # 24 bits sit in the upper three bytes of 32
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        big = coding[0] == ">"
        wide[:, slice(0, 3) if big else slice(1, 4)] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        values = wide.reshape(-1).view(">i4" if big else "<i4")
        size = 4
    else:
        values = np.frombuffer(raw, coding)
    with np.errstate(over="ignore"):  # infinite samples are refused by the reader
        samples: Floats = values.astype(np.float32)
    if kind != "f":
        samples *= np.float32(2.0 ** (1 - 8 * size))
        if kind == "u":
            samples -= np.float32(1)
    return samples


def pcm(raw: bytes, encoding: str, channels: int) -> Floats:
    """Samples (n, channels) in raw bytes of one of `ENCODINGS`, little-endian, channels interleaved.

    Raises:
        AudioError: another encoding, no such number of channels, or bytes that end within a frame.
    """
    if encoding not in ENCODINGS or not 1 <= channels <= MAX_CHANNELS:
        known = f"{', '.join(list(ENCODINGS)[:-1])} or {list(ENCODINGS)[-1]}"
        raise AudioError(f"{channels} channels of {encoding}: 1 to {MAX_CHANNELS} of {known} can be used")
    if len(raw) % (width(ENCODINGS[encoding]) * channels):
        raise AudioError(f"{len(raw)} bytes are not whole frames of {channels} {encoding} samples")
    return floats(raw, ENCODINGS[encoding]).reshape(-1, channels)


@lru_cache(maxsize=1)
def _laws() -> dict[str, Floats]:
    """What each byte of G.711 stands for."""
    code = np.arange(256)
    inverted = ~code & 255
    size = (((inverted & 15) << 3) + 132 << (inverted >> 4 & 7)) - 132
    mulaw = np.where(inverted & 128, -size, size)
    even = code ^ 0x55
    exponent, mantissa = even >> 4 & 7, (even & 15) << 4
    size = np.where(exponent, mantissa + 264 << np.maximum(exponent - 1, 0), mantissa + 8)
    alaw = np.where(even & 128, size, -size)
    return {name: (table / 32768).astype(np.float32) for name, table in (("mulaw", mulaw), ("alaw", alaw))}
