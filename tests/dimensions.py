"""Synthetic clips with arousal and valence, and a bundle of a student that learnt them: for several tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from mifuse.clips.manifest import Clip, write_manifest
from mifuse.demo import synth
from tests.commands import run

RANGES = {"arousal": (1.0, 7.0), "valence": (-1.0, 1.0)}
TARGETS = ("--targets", "valence,arousal", "--range", "arousal=1:7", "--range", "valence=-1:1")
# Where emotions are in the plane of Russell (1980), roughly: 0 to 1.
PLANE = {"angry": (0.9, 0.1), "happy": (0.8, 0.9), "neutral": (0.4, 0.5), "sad": (0.1, 0.2)}


def write_clips(folder: Path, count: int = 16, speakers: int = 4, seconds: float = 0.8) -> Path:
    """A manifest of clips with labels, speakers, and both dimensions; the last clip has no valence."""
    clips = []
    for i in range(count):
        emotion, who = list(PLANE)[i % 4], i // 4 % speakers
        rng = np.random.default_rng([i, who])
        voice = synth.make_speaker(synth.DOMAINS["studio"], np.random.default_rng(who))
        path = folder / f"c{i:02}.wav"
        folder.mkdir(parents=True, exist_ok=True)
        audio = synth.synthesise(emotion, voice, synth.DOMAINS["studio"], rng, seconds=seconds)
        soundfile.write(path, audio, synth.RATE)
        arousal, valence = np.clip(PLANE[emotion] + 0.05 * rng.standard_normal(2), 0, 1)
        extra = {"arousal": f"{1 + 6 * arousal:.2f}", "valence": f"{2 * valence - 1:.2f}"}
        extra["valence"] = "" if i == count - 1 else extra["valence"]
        clips.append(Clip(path.name, path, emotion, f"s{who}", extra=extra))
    write_manifest(folder / "m.csv", clips)
    return folder / "m.csv"


def samples_of(manifest: Path, number: int = 0) -> np.ndarray:
    """Samples (n,) of a clip of `write_clips`."""
    samples: np.ndarray = soundfile.read(manifest.parent / f"c{number:02}.wav", dtype="float32")[0]
    return samples


def export_quickly(student: Path, manifest: Path) -> Path:
    """A bundle in 8 bits beside the manifest; int8 may lose what it likes."""
    folder = manifest.parent / "bundle"
    run("export", student, "-o", folder, "--int8", "--calibration", manifest, "--max-drop", "20")
    return folder
