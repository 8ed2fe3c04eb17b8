"""Clips without speech are not learnt from, and nobody is paid for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest
from mifuse.clips.speech import speech_shares, spoken
from mifuse.demo.synth import DOMAINS, RATE, make_speaker, synthesise
from mifuse.errors import AudioError


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Eight clips of two voices; then silence, hiss and a tone."""
    rng = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    made = {
        "silence": 0 * time,
        "hiss": 0.1 * rng.standard_normal(time.size),
        "tone": 0.3 * np.sin(2700 * time),
    }
    rows = [f"{name}.wav,sad,nobody" for name in made]
    for who in range(2):
        speaker = make_speaker(DOMAINS["studio"], rng)
        for label in LABELS:
            made[f"{label}{who}"] = synthesise(label, speaker, DOMAINS["studio"], rng, 1.5)
            rows.append(f"{label}{who}.wav,{label},s{who}")
    for name, samples in made.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
    (tmp_path / "m.csv").write_text("\n".join(["path,label,speaker", *rows]) + "\n")
    return tmp_path / "m.csv"


def test_silent_clips_are_counted_and_broken_ones_all_named(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips, cache = read_manifest(manifest).clips, AudioCache(tmp_path / "cache")
    assert [clip.path.stem[:-1] for clip in spoken(clips, cache)] == [*LABELS, *LABELS]
    assert "3 of 11 clips hold no speech and are left out (silence.wav, hiss.wav, tone.wav)" in caplog.text
    with pytest.raises(AudioError, match="nobody speaks in any of 3 clips"):
        spoken(clips[:3], cache)
    for name in ("angry0", "sad1"):
        (tmp_path / f"{name}.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"angry0\.wav: .*; .*sad1\.wav: "):
        spoken(clips, cache)
    assert len(spoken(clips, cache, broken=True)) == 8
    assert np.isnan(speech_shares(clips, cache)).sum() == 2


def test_nothing_is_asked_about_silence(manifest: Path, tmp_path: Path) -> None:
    command = ["label", str(manifest), "--teacher", "openai", "--model", "gpt-audio", "--dry-run", "--json"]
    done = CliRunner().invoke(main, [*command, "--draws", "4", "--store", str(tmp_path / "d.db")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["clips"], found["missing"], found["requests"]) == (8, 32, 8)


def test_training_leaves_silence_out(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["train", str(manifest), "-o", str(tmp_path / "source"), "--size", "xs", "--set", "fit.steps=2"]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert "3 of 11 clips hold no speech" in caplog.text
    command = ["choose", str(manifest), "-o", str(tmp_path / "few.csv"), "--random", "8"]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert all(clip.speaker != "nobody" for clip in read_manifest(tmp_path / "few.csv", labels=None).clips)
