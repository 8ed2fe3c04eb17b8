"""Awkward audio files, made here: what each is, and the right samples or the right one-line error."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soundfile

from tests.bundles import RATE, speech

VOICE = speech(0.5, pitch=150.0)
STEREO = np.stack([VOICE, 0.5 * VOICE], axis=1)
GUID = bytes.fromhex("000000001000800000aa00389b71")
CUT, EMPTY, FOREIGN = r"cut short \(", "empty", "not a"


@dataclass(frozen=True)
class Awkward:
    """A file: `right` is its samples at `rate` (n,), or what the error says.

    `close`: how far from them a sample may be; `needs`: what reads it beside our own code.
    """

    kind: str
    name: str
    content: bytes
    right: np.ndarray | str
    rate: int = RATE
    close: float = 1e-4
    needs: str = ""


def wav(
    samples: np.ndarray,
    tag: int = 1,
    bits: int = 16,
    rate: int = RATE,
    *,
    wide: int = 0,
    declared: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    form: bytes = b"RIFF",
    channels: int | None = None,
) -> bytes:
    """A WAV of samples (n,) or (n, c); `wide`: bits of an extensible format's container, 0 is none."""
    big = ">" if form == b"RIFX" else "<"
    count = (1 if samples.ndim == 1 else samples.shape[1]) if channels is None else channels
    store = wide or bits
    if tag == 3:
        raw = samples.astype(f"{big}f{bits // 8}").tobytes()
    elif bits == 8:
        raw = np.round(samples * 127 + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(samples.astype(np.float64) * (2 ** (bits - 1) - 1)).astype(np.int64) << (
            store - bits
        )
        order = "big" if big == ">" else "little"
        raw = b"".join(int(v).to_bytes(store // 8, order, signed=True) for v in whole.ravel())
    frame = count * store // 8
    fmt = struct.pack(big + "HHIIHH", 0xFFFE if wide else tag, count, rate, rate * frame, frame, store)
    if wide:
        fmt += struct.pack("<HHIH", 22, bits, 0, tag) + GUID
    size = len(raw) if declared is None else declared
    body = b"WAVE" + before + b"fmt " + struct.pack(big + "I", len(fmt)) + fmt
    body += b"data" + struct.pack(big + "I", size) + raw + after
    return form + struct.pack(big + "I", min(len(body), 0xFFFFFFFF)) + body


def written(samples: np.ndarray, kind: str, subtype: str | None = None, rate: int = RATE) -> bytes:
    """By libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def rf64(samples: np.ndarray) -> bytes:
    whole = wav(samples, form=b"RF64", declared=0xFFFFFFFF)
    size = 2 * samples.size
    sizes = b"ds64" + struct.pack("<IQQQI", 28, size + 72, size, samples.size, 0)
    return whole[:4] + b"\xff" * 4 + whole[8:12] + sizes + whole[12:]


def files() -> Iterator[Awkward]:
    """All of them."""
    yield from _codings()
    yield from _sizes()
    yield from _others()
    yield from _tails()
    yield from _mp3()
    yield from _shapes()
    yield from _broken()


def _codings() -> Iterator[Awkward]:
    kind = "WAV, RIFX, RF64: PCM, float"
    for bits, close in ((8, 0.01), (16, 1e-4), (24, 1e-6), (32, 1e-6)):
        yield Awkward(kind, f"pcm{bits}", wav(VOICE, 1, bits), VOICE, close=close)
    for bits in (32, 64):
        yield Awkward(kind, f"float{bits}", wav(VOICE, 3, bits), VOICE, close=1e-6)
        yield Awkward(kind, f"rifx float{bits}", wav(VOICE, 3, bits, form=b"RIFX"), VOICE, close=1e-6)
    for bits in (16, 24, 32):
        yield Awkward(kind, f"rifx pcm{bits}", wav(VOICE, 1, bits, form=b"RIFX"), VOICE)
    yield Awkward(kind, "24 in 32, extensible", wav(VOICE, 1, 24, wide=32), VOICE, close=1e-6)
    yield Awkward(kind, "pcm16, extensible", wav(VOICE, 1, 16, wide=16), VOICE)
    yield Awkward(kind, "float32, extensible", wav(VOICE, 3, 32, wide=32), VOICE, close=1e-6)
    yield Awkward(kind, "rf64", rf64(VOICE), VOICE)
    for container in ("WAV", "AIFF", "AU", "W64"):
        for law in ("ULAW", "ALAW"):
            content = written(VOICE, container, law)
            yield Awkward("mu-law, A-law", f"{container} {law}", content, VOICE, close=0.02)


def _sizes() -> Iterator[Awkward]:
    kind = "WAV with a wrong length"
    whole = 2 * VOICE.size
    for size in (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36, 0xFFFFFFFF, whole // 2, whole + 16):
        yield Awkward(kind, f"declares {size:#x}", wav(VOICE, declared=size), VOICE)
    yield Awkward(kind, "declares four times as much", wav(VOICE, declared=4 * whole), CUT)
    kind = "WAV with other chunks"
    for name, chunk in (("LIST", b"LIST\x04\0\0\0abcd"), ("odd, padded", b"LIST\x03\0\0\0abc\0")):
        yield Awkward(kind, name, wav(VOICE, before=chunk), VOICE)
    yield Awkward(kind, "odd, not padded", wav(VOICE, before=b"LIST\x03\0\0\0abc"), VOICE)
    yield Awkward(kind, "behind the audio", wav(VOICE, after=b"id3 \x04\0\0\0abcd"), VOICE)
    more = b"data" + struct.pack("<I", whole) + bytes(whole)
    yield Awkward(kind, "audio twice", wav(VOICE, after=b"LIST\x04\0\0\0abcd" + more), "second chunk")
    one, empty = wav(VOICE), b"data" + bytes(4)
    yield Awkward(kind, "an empty data chunk behind the audio", one + empty, VOICE)
    yield Awkward(kind, "an empty data chunk first", one[:36] + empty + one[36:], VOICE)
    yield Awkward(kind, "fact and bext", wav(VOICE, before=b"fact\x04\0\0\0\0\0\0\0bext\x02\0\0\0ab"), VOICE)


def _others() -> Iterator[Awkward]:
    kind = "AIFF, AU, W64: PCM, float"
    for container, subtypes in {
        "AIFF": ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
        "AU": ("PCM_S8", "PCM_16", "PCM_24", "FLOAT"),
        "W64": ("PCM_16", "PCM_24", "FLOAT"),
    }.items():
        for subtype in subtypes:
            close = 0.01 if subtype == "PCM_S8" else 1e-4
            yield Awkward(
                kind, f"{container} {subtype}", written(VOICE, container, subtype), VOICE, close=close
            )
    for subtype, close in (("IMA_ADPCM", 0.09), ("MS_ADPCM", 0.09), ("GSM610", 0.3), ("G721_32", 0.3)):
        rate = RATE if "IMA" in subtype or "MS" in subtype else 8000
        voice = VOICE if rate == RATE else speech(0.5, rate, 150.0)
        content = written(voice, "WAV", subtype, rate)
        yield Awkward("ADPCM, GSM, G.721", subtype, content, voice, rate, close, "soundfile")
    kind = "FLAC, Ogg, Opus, CAF"
    for container, subtype, close in (
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 0.1),
        ("OGG", "OPUS", 0.2),
        ("CAF", "PCM_16", 1e-4),
    ):
        content = written(VOICE, container, subtype)
        yield Awkward(kind, f"{container} {subtype}", content, VOICE, close=close, needs="soundfile")
    for container in ("FLAC", "AIFF", "AU", "W64"):
        content = written(VOICE, container, "PCM_16")
        needs = "soundfile" if container == "FLAC" else ""
        right = "" if container == "FLAC" else CUT  # libsndfile has words of its own
        yield Awkward(
            "cut in the middle", container, content[: len(content) // 2], right or "cut|decoded", needs=needs
        )


def _tails() -> Iterator[Awkward]:
    kind = "FLAC, Ogg, Opus, CAF"
    ogg, flac = written(VOICE, "OGG", "VORBIS"), written(VOICE, "FLAC", "PCM_16")
    twice = np.tile(VOICE, 2)
    yield Awkward(kind, "Ogg of two joined", ogg + ogg, twice, close=0.1, needs="soundfile")
    between = ogg + bytes(500) + ogg
    yield Awkward(kind, "Ogg of two joined, bytes between", between, twice, close=0.1, needs="soundfile")
    broken = ogg[: len(ogg) // 2] + bytes(len(ogg) - len(ogg) // 2)
    damaged = r"part 2 of those joined cannot be decoded \("
    yield Awkward("cut in the middle", "Ogg of two joined", ogg + broken, damaged, needs="soundfile")
    yield Awkward(kind, "FLAC, ID3v1 behind", flac + b"TAG" + bytes(125), VOICE, needs="soundfile")
    yield Awkward(
        kind, "FLAC, ID3v2 in front", b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + flac, VOICE, needs="soundfile"
    )


def _mp3() -> Iterator[Awkward]:
    kind, long = "MP3", np.tile(VOICE, 6)
    raw = written(long, "MP3")
    tag = raw.index(b"Info") if b"Info" in raw else raw.index(b"Xing")
    yield Awkward(kind, "with a count", raw, long, close=0.2, needs="soundfile")
    yield Awkward(kind, "joined", raw + raw, np.tile(long, 2), close=0.2, needs="soundfile")
    yield Awkward(kind, "without tag", raw[raw.index(b"\xff", tag) :], long, close=0.2, needs="soundfile")
    yield Awkward(
        kind,
        "from the middle",
        raw[5001:],
        long[: int(long.size * (1 - 5001 / len(raw)))],
        close=0.2,
        needs="soundfile",
    )
    yield Awkward(kind, "cut", raw[: len(raw) * 6 // 10], CUT, needs="soundfile")


def _shapes() -> Iterator[Awkward]:
    kind = "odd shapes"
    yield Awkward(kind, "one sample", wav(np.full(1, 0.25, np.float32)), np.full(1, 0.25, np.float32))
    yield Awkward(kind, "silence", wav(np.zeros(RATE, np.float32)), np.zeros(RATE, np.float32))
    yield Awkward(kind, "two channels", wav(STEREO), STEREO.mean(axis=1))
    yield Awkward(kind, "eight channels", wav(np.repeat(VOICE[:, None], 8, axis=1)), VOICE)
    yield Awkward(kind, "opposite channels", wav(np.stack([VOICE, -VOICE], axis=1)), VOICE)
    for rate in (8000, 44_100, 192_000):
        voice = speech(0.5, rate, 150.0)
        yield Awkward(kind, f"{rate} Hz", wav(voice, rate=rate), voice, rate)


def _broken() -> Iterator[Awkward]:
    kind, whole = "no audio, or none that can be used", wav(VOICE)
    yield Awkward(kind, "0 bytes", b"", EMPTY)
    yield Awkward(kind, "text", b"hello, this is no audio at all, " * 9, FOREIGN)
    yield Awkward(kind, "a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(200)), FOREIGN)
    yield Awkward(kind, "an archive", b"PK\x03\x04" + bytes(range(200)), FOREIGN)
    yield Awkward(kind, "notes of macOS", b"\x00\x05\x16\x07" + bytes(100), "AppleDouble")
    yield Awkward(kind, "header only", whole[:40], "cut short")
    yield Awkward(kind, "no data chunk", whole[: whole.index(b"data")], "cut short")
    yield Awkward(kind, "cut in the middle", whole[: len(whole) // 2], CUT)
    yield Awkward(kind, "no samples", wav(np.zeros(0, np.float32)), EMPTY)
    yield Awkward(kind, "NaN", wav(np.full(9, np.nan), 3, 32), "NaN or infinite value at frame 0")
    yield Awkward(
        kind, "infinity", wav(np.r_[np.zeros(5), np.inf], 3, 32), "NaN or infinite value at frame 5"
    )
    yield Awkward(kind, "integers as floats", wav(np.full(9, 3e4), 3, 32), "reach 30000")
    for rate in (0, 7, 1_000_000):
        yield Awkward(kind, f"rate {rate}", wav(VOICE, rate=rate), f"sample rate is {rate} Hz")
    yield Awkward(kind, "900 channels", wav(VOICE, channels=900), "declares 900 channels")
    yield Awkward(kind, "no channels", wav(VOICE, channels=0), "declares 0 channels")
