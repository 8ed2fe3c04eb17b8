"""What is no speech, made here; and speech with each of it at some distance in level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, resample_poly

from mifuse_runtime.audio import Floats

Speech = NDArray[np.bool_]  # a frame each

RATE, FRAME = 16_000, 512
LEAD = 32  # frames of the sound alone before the speech
KINDS = ("tones", "music", "hum", "hiss", "clicks", "silence", "breath")
BAND = 30.0  # dB below the loudest frame of clean speech: louder frames are speech
CLEAR = 45.0  # and quieter ones are not; between the two, nobody can say


def sound(kind: str, size: int, rng: np.random.Generator) -> Floats:
    """One of `KINDS`, (size,), of power 1; silence is a faint noise."""
    time, noise = np.arange(size) / RATE, rng.standard_normal(size)
    if kind == "silence":
        return (noise * 10 ** rng.uniform(-5, -3)).astype(np.float32)
    if kind == "hiss":
        colour = rng.integers(3)
        made = [noise, lfilter([1], [1, -0.95], noise), np.diff(noise, prepend=0)][colour]
    elif kind == "hum":
        made = 0.02 * noise
        for k in range(1, rng.integers(4, 14)):
            made += rng.uniform(0.1, 1) / k * np.sin(2 * np.pi * rng.choice([50, 60]) * k * time)
    elif kind == "breath":
        shape = [1, -1.6 * np.cos(2 * np.pi * rng.uniform(500, 2500) / RATE), 0.64]
        swell = np.maximum(0, np.sin(2 * np.pi * rng.uniform(0.4, 1) * time)) ** 2
        made = lfilter([1, 0, -1], shape, noise) * swell + 1e-3 * noise
    else:
        made = {"tones": _tones, "music": _music, "clicks": _clicks}[kind](time, rng) + 1e-3 * noise
    return (made / np.sqrt(np.mean(made**2) + 1e-20)).astype(np.float32)


def _tones(time: Floats, rng: np.random.Generator) -> Floats:
    """Ringback, keys of a telephone, a whistle, a dial tone."""
    kind = rng.integers(4)
    if kind == 0:
        return np.sin(2 * np.pi * rng.uniform(400, 480) * time) * (time % rng.uniform(1.5, 5) < 1)
    if kind == 1:
        keys = time.size // 3200 + 1
        pairs = rng.choice([697, 770, 852, 941], keys), rng.choice([1209, 1336, 1477], keys)
        tracks = [np.cumsum(np.repeat(pair, 3200)[: time.size]) / RATE for pair in pairs]
        return (np.sin(2 * np.pi * tracks[0]) + np.sin(2 * np.pi * tracks[1])) * (time % 0.2 < 0.12)
    if kind == 2:
        return np.sin(2 * np.pi * rng.uniform(200, 3000) * time)
    return (np.sin(2 * np.pi * 350 * time) + np.sin(2 * np.pi * 440 * time)) * (time % 1 < 0.5)


def _music(time: Floats, rng: np.random.Generator) -> Floats:
    """Chords of plucked or held notes on a beat, on some beats a drum."""
    made, beat = np.zeros(time.size), rng.uniform(0.2, 0.6)
    for start in range(0, time.size, int(beat * RATE)):
        size = min(int(rng.uniform(0.8, 3) * beat * RATE), time.size - start)
        within, root = np.arange(size) / RATE, 110 * 2 ** (rng.integers(0, 24) / 12)
        for step in rng.choice([0, 3, 4, 7, 10, 12], rng.integers(1, 4), replace=False):
            pitch, swell = root * 2 ** (step / 12), np.minimum(within / 0.01, 1)
            swell *= np.exp(-within * rng.uniform(0.5, 6))
            for k in range(1, 8):
                made[start : start + size] += (
                    swell * rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * pitch * k * within)
                )
        if rng.random() < 0.5:
            drum = min(1600, time.size - start)
            made[start : start + drum] += 0.5 * rng.standard_normal(drum) * np.exp(-np.arange(drum) / 300)
    return made


def _clicks(time: Floats, rng: np.random.Generator) -> Floats:
    made = np.zeros(time.size)
    for start in rng.integers(0, time.size, max(1, int(time.size / RATE * rng.uniform(1, 8)))):
        size = min(int(rng.integers(5, 800)), time.size - start)
        burst = rng.standard_normal(size) * np.exp(-np.arange(size) / rng.uniform(5, 150))
        made[start : start + size] += rng.uniform(5, 20) * burst
    return made


def truth(clean: Floats) -> tuple[Speech, Speech]:
    """Which frames of clean speech are speech, and which of all are sure, (k,) each."""
    frames = clean[: clean.size // FRAME * FRAME].reshape(-1, FRAME)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    speech = level > max(level.max() - BAND, -60)
    return speech, speech | (level < level.max() - CLEAR)


def mixed(
    clips: Sequence[Floats], decibels: float, seed: int, telephone: float = 0.0
) -> Iterator[tuple[str, Floats, Speech, Speech]]:
    """Kind, samples, speech and sure frames: each clip with each kind, first a second of the kind alone.

    `decibels`: of the speech over the sound; `telephone`: share that is limited to 3.4 kHz.
    """
    rng = np.random.default_rng(seed)
    for clip in clips:
        speech, sure = truth(clip)
        loud = np.repeat(speech, FRAME)
        power = float(np.mean(clip[: loud.size][loud] ** 2)) if loud.any() else 1e-4
        for kind in KINDS:
            made = sound(kind, clip.size + LEAD * FRAME, rng)
            made *= 1 if kind == "silence" else np.sqrt(power / 10 ** (decibels / 10))
            made[LEAD * FRAME :] += clip
            if rng.random() < telephone:
                made = resample_poly(resample_poly(made, 1, 2), 2, 1)[: made.size].astype(np.float32)
            made = made[: made.size // FRAME * FRAME]
            lead = np.zeros(LEAD, bool)
            yield kind, made, np.r_[lead, speech], np.r_[~lead, sure]
