"""A stand-in LALM for the demo: draws by hand-made rules on what is measured in the audio, not on labels.

It measures F0, energy, rate and spectral tilt, relates them to the rest of the recordings, says "neutral" too
often and rounds its probabilities, as a verbalising LALM does. Call it a stand-in wherever a number from it
appears.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache, Samples
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Manifest
from mifuse.files import whole_file
from mifuse.teachers.base import Source
from mifuse.teachers.jsonl import json_line
from mifuse.voices import prosody

Array = NDArray[np.float64]

TEACHER = "stand-in"
MEASURES = ("f0_median", "f0_range", "f0_slope", "energy", "energy_range", "rate", "tilt")
# What a phonetics textbook says about each emotion, per standard deviation of MEASURES.
RULES = {
    "angry": (0.4, 0.2, -0.2, 0.9, 0.7, 0.2, 0.6),
    "happy": (0.8, 0.5, 0.2, 0.2, 0.0, 0.1, 0.2),
    "neutral": (-0.3, -0.5, 0.0, -0.1, -0.2, 0.3, -0.1),
    "sad": (-0.5, -0.4, -0.3, -0.9, -0.4, -0.7, -0.6),
}
BIAS = {"neutral": 1.4}  # log-odds that it likes a class for no reason


def measure(samples: Samples) -> Array:
    """MEASURES of one clip of (n,) samples at 16 kHz, (7,); the median F0 in semitones."""
    found = dict(zip(prosody.MEASURES, prosody.measure(samples).values, strict=True))
    values = np.array([found[name] for name in MEASURES])
    values[0] = 12 * np.log2(max(values[0], prosody.F0_RANGE[0]))  # 0 Hz: nothing is voiced
    return values


def relate(measures: Array) -> Array:
    """Measures (N, 7) relative to the other clips, in robust standard deviations, at most 2.5.

    Pitch is related to voices of its kind: above or below the middle of all, as any listener does.
    """
    measures = measures.copy()
    high = measures[:, 0] > np.median(measures[:, 0])
    for group in (high, ~high):
        if group.any():
            measures[group, 0] -= np.median(measures[group, 0])
    centre = np.median(measures, axis=0)
    spread = 1.48 * np.median(np.abs(measures - centre), axis=0)
    return np.asarray(np.clip((measures - centre) / np.maximum(spread, 1e-3), -2.5, 2.5))


def verbalise(scores: Array, rng: np.random.Generator, noise: float = 0.9) -> Array:
    """One draw of scores (N, C): noise, softmax, probabilities in steps of 0.05."""
    noisy = 1.4 * (scores + noise * rng.standard_normal(scores.shape))
    probs = np.exp(noisy - noisy.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    rounded = np.round(probs * 20) / 20
    # Rounding leaves sums of 0.9 to 1.1: the likeliest takes the rest, or loading would refuse some.
    rounded[np.arange(len(rounded)), rounded.argmax(axis=1)] += 1 - rounded.sum(axis=1)
    return np.asarray(rounded)


def stand_in_lalm(
    manifest: Manifest,
    out: str | Path,
    *,
    draws: int = 8,
    seed: int = 0,
    cache: AudioCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `draws` draws of the stand-in LALM for every clip of a manifest as JSONL. Labels are not read.

    Args:
        progress: called with clips done and clips in all.

    Raises:
        AudioError: a clip that cannot be read.
    """
    out, cache = Path(out), cache or AudioCache()
    measured = []
    for count, clip in enumerate(manifest.clips, start=1):
        measured.append(measure(cache.samples(clip)))
        if progress:
            progress(count, len(manifest))
    related = relate(np.stack(measured))
    scores = related @ np.array([RULES[label] for label in LABELS]).T
    scores += np.array([BIAS.get(label, 0.0) for label in LABELS])
    rng = np.random.default_rng(seed)
    lines = []
    for draw in range(draws):
        for clip, row in zip(manifest.clips, verbalise(scores, rng), strict=True):
            probs = {label: round(float(p), 2) for label, p in zip(LABELS, row, strict=True)}
            lines.append(json_line(clip, Source(TEACHER), draw, probs))
    with whole_file(out) as partial:
        partial.write_text("".join(lines), encoding="utf-8")
    return out
