"""Recordings, answers and bundles that are changed at random, and what other readers make of them."""

from __future__ import annotations

import io
import json
import random
import struct
from typing import Annotated, Any
from unittest import mock

import numpy as np
import pydantic
import soundfile

from mifuse.clips.labels import LABELS, Naming
from mifuse.teachers import replies
from mifuse.teachers.answers import InvalidAnswerError, parse
from mifuse.teachers.base import SUM_TOLERANCE
from mifuse.teachers.openai import usage
from mifuse.teachers.service import ServiceError
from mifuse_runtime import AudioError, BundleError
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.containers import layout
from mifuse_runtime.files import read_audio

RATE = 16_000
_SHARE = Annotated[float, pydantic.Field(ge=0, le=1 + SUM_TOLERANCE, allow_inf_nan=False)]
SCHEMA = pydantic.create_model(  # type: ignore[call-overload]
    "Schema",
    __config__=pydantic.ConfigDict(extra="forbid", strict=True),
    **dict.fromkeys(LABELS, (_SHARE, ...)),
)


def wav_seeds() -> list[bytes]:
    """Files of all codings that WAV commonly has, mono and stereo."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((400, 2))
    seeds = []
    for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"):
        for channels in (1, 2):
            file = io.BytesIO()
            soundfile.write(file, noise[:, :channels], RATE, format="WAV", subtype=kind)
            seeds.append(file.getvalue())
    return seeds


def changed_wav(seed: bytes, chance: random.Random) -> bytes:
    """Bytes of the head changed, chunks put in, the end cut."""
    content = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        kind = chance.randrange(5)
        if kind == 0:
            content[chance.randrange(min(60, len(content)))] = chance.choice(
                (0, 1, 2, 3, 16, 24, 32, 127, 255)
            )
        elif kind == 1:
            del content[chance.randrange(12, len(content)) :]
        elif kind == 2:
            odd = chance.randrange(9)
            content[12:12] = b"LIST" + struct.pack("<I", odd) + bytes(odd + odd % 2)
        elif kind == 3:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        else:
            content[4:8] = struct.pack("<I", chance.choice((0, len(content), 0xFFFFFFFF)))
        if len(content) < 16:
            content += bytes(16)
    return bytes(content)


def wav(content: bytes, _: int) -> str:
    """Read by us and by libsndfile; where both do, it is the same sound as far as both go."""
    try:
        with mock.patch("mifuse_runtime.decoders.shutil.which", return_value=None):  # ffmpeg: 0.2 s a file
            ours = read_audio(io.BytesIO(content), RATE, 60.0)
    except AudioError as error:
        return "" if "\n" not in str(error) else f"more than one line: {error}"
    if not np.isfinite(ours).all():
        return "samples that are not finite"
    try:
        theirs, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError, ValueError, OverflowError):
        return ""
    if rate != RATE or not theirs.size or not np.isfinite(theirs).all() or _wide(content):
        return ""
    both = min(len(ours), len(theirs))
    mixed = theirs[:both].mean(axis=1, dtype=np.float64)
    far = float(np.abs(ours[:both] - mixed).max()) if both else 0.0
    return "" if far < 1e-3 * max(1.0, float(np.abs(mixed).max())) else f"samples differ by {far:.3g}"


def _wide(content: bytes) -> bool:
    """Whether samples have more bytes than their bits need: libsndfile reads them without the gaps."""
    found = layout(io.BytesIO(content))
    if found is None:
        return True
    width = {"u1": 1, "i2": 2, "i3": 3, "i4": 4, "f4": 4, "f8": 8}.get((found.coding or "").lstrip("<>"), 1)
    at = content.find(b"fmt ")
    block, bits = struct.unpack("<HH", content[at + 20 : at + 24].ljust(4, b"\0"))
    return bool(bits) and (block * 8 != bits * found.channels or width * 8 != bits)


def json_seeds() -> list[bytes]:
    """Answers, replies, and nests of both."""
    even = json.dumps(dict.fromkeys(LABELS, 1 / len(LABELS)))
    message = {"role": "assistant", "content": even}
    counts = {"prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": {"audio_tokens": 2}}
    reply = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": counts}
    return [even.encode(), json.dumps(reply).encode(), json.dumps({"error": {"code": 502}}).encode()]


PARTS = (
    b"null", b"[]", b"{}", b"-1", b"1e999", b"NaN", b"true", b'""', b'"\\ud800"', b"0.5", b"1", b"9" * 30,
    b"[[[[",
    b'"error":', b'"usage":', b'"angry":', b"<html>", b"{", b"}", b",", b'"', b"\xff", b"\0", b" ",
)  # fmt: skip


def changed_json(seed: bytes, chance: random.Random) -> bytes:
    """Values and marks of JSON put in, taken out or exchanged."""
    content = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        at, kind = chance.randrange(len(content) + 1), chance.randrange(3)
        if kind == 0:
            content[at:at] = chance.choice(PARTS)
        elif kind == 1:
            del content[at : at + chance.randint(1, 8)]
        else:
            end = content.find(b":", at)
            stop = min((p for p in (content.find(b",", end), content.find(b"}", end)) if p > 0), default=-1)
            if 0 < end < stop:
                content[end + 1 : stop] = chance.choice(PARTS)
    return bytes(content)


def answers(content: bytes, _: int) -> str:
    """As an answer, against a schema; as a reply: answer, outage or nothing, and counts to be booked."""
    try:
        read = replies.read(content, "host", "sk-secret", usage)
    except ServiceError as error:
        if "\n" in str(error) or "sk-secret" in str(error):
            return f"not one clean line: {error!r}"
        read = {}
    counts, odd = replies.billed(usage(read.get("usage")), {"input": 100, "output": 10})
    if (
        any(type(n) is not int or n < 0 for n in counts.values())
        or sum(counts.values()) > 110
        or len(odd) > 200
    ):
        return f"counts of {counts} ({odd})"
    return _against_schema(content.decode("utf-8", "replace"))


def _against_schema(text: str) -> str:
    try:
        ours: Any = parse(text, LABELS)
    except InvalidAnswerError:
        ours = None
    twice = [False]

    def once(found: list[tuple[str, Any]]) -> dict[str, Any]:
        twice[0] |= len(dict(found)) < len(found)
        return dict(found)

    try:
        theirs = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return ""  # prose around an object, which a schema does not know
    if not isinstance(theirs, dict) or twice[0]:
        return ""
    four = Naming(LABELS)
    # An absent label of no probability is let pass.
    theirs = {
        name: value
        for name, value in theirs.items()
        if four.label(name) or type(value) not in (int, float) or value != 0
    }
    named = {four.label(name) or name: value for name, value in theirs.items()}
    if len(named) < len(theirs):  # a label under two of its names
        return "" if ours is None else f"a label twice: {text[:80]}"
    theirs = named
    try:
        SCHEMA.model_validate(theirs)
        valid = abs(sum(theirs.values()) - 1) <= SUM_TOLERANCE + 1e-6
    except pydantic.ValidationError:
        valid = False
    if valid != (ours is not None):
        return f"the schema says {valid}: {text[:80]}"
    return "" if ours is None or ours == theirs else f"other numbers: {ours}"


def bundle_seeds() -> list[bytes]:
    """bundle.json of a bundle."""
    files, models = {"model.onnx": "00" * 32}, {"fp32": {"onnxruntime": "model.onnx"}}
    made = Bundle(labels=("happy", "sad"), default="fp32", models=models, files=files)
    return [made.to_json().encode()]


def bundle(content: bytes, _: int) -> str:
    """Read or refused in one line; what is read is written and read again."""
    try:
        read = Bundle.from_json(content)
    except BundleError as error:
        return "" if "\n" not in str(error) else f"more than one line: {error}"
    return "" if Bundle.from_json(read.to_json()) == read else "other when it is read again"
