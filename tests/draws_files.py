"""Small manifests and files of draws. Clips are never decoded here, so any bytes do."""

from __future__ import annotations

import json
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Manifest, read_manifest
from tests.bundles import speech


def make_manifest(folder: Path, clips: int, splits: Sequence[str] = ()) -> Manifest:
    """`clips` files c0.wav, c1.wav, … of different content; `splits` are dealt out in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    header, rows = "path,split\n" if splits else "path\n", []
    for i in range(clips):
        (folder / f"c{i}.wav").write_bytes(f"{folder.name} {i}".encode())
        rows.append(f"c{i}.wav" + (f",{splits[i % len(splits)]}" if splits else ""))
    (folder / "target.csv").write_text(header + "\n".join(rows) + "\n")
    return read_manifest(folder / "target.csv")


def probs(clip: int, draw: int) -> dict[str, float]:
    """A distribution in steps of 0.05 that depends on both."""
    p = np.random.default_rng([clip, draw]).multinomial(20, [0.4, 0.3, 0.2, 0.1]) / 20
    return dict(zip(LABELS, np.roll(p, clip).round(2).tolist(), strict=True))


def line(clip: int, draw: int, /, **changes: Any) -> dict[str, Any]:
    """One draw as JSON; a change to None leaves the key out."""
    row = {"path": f"c{clip}.wav", "teacher": "stand-in", "draw": draw, "probs": probs(clip, draw)}
    return {key: value for key, value in (row | changes).items() if value is not None}


def write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def make_speech(
    folder: Path, clips: int, seconds: float = 1.0, columns: dict[str, list[str]] | None = None
) -> Manifest:
    """`clips` WAV files of different voices, for those who decode them; `columns` go into the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    columns, rows = columns or {}, []
    for i in range(clips):
        voice = np.round(32767 * speech(seconds, pitch=100 + i)).astype("<i2")
        with wave.open(str(folder / f"c{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(voice.tobytes())
        rows.append(",".join([f"c{i}.wav", *(values[i] for values in columns.values())]))
    (folder / "target.csv").write_text("\n".join([",".join(["path", *columns]), *rows]) + "\n")
    return read_manifest(folder / "target.csv", labels=None)
