"""The commands of docs/call-centre.md, on synthetic calls: stereo, 8 kHz, mostly neutral, nobody named."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import DOMAINS, LABELS, RATE, make_domain, make_speaker, synthesise
from tests.llm_server import LlmServer
from tests.tutorials import QUICK, follow, mifuse

DOCS = Path(__file__).parents[1] / "docs" / "call-centre.md"


def call(seed: int) -> np.ndarray:
    """Two people in turns of 2 s, three quarters of them neutral, (n, 2) at 8 kHz; 20 s."""
    rng = np.random.default_rng(seed)
    people = [make_speaker(DOMAINS["phone"], rng) for _ in range(2)]
    sides = np.zeros((2, 20 * RATE))
    for turn in range(8):
        mood = "neutral" if rng.random() < 0.75 else str(rng.choice(LABELS))
        start = int(2.4 * turn * RATE)
        sides[turn % 2, start : start + 2 * RATE] = synthesise(
            mood, people[turn % 2], DOMAINS["phone"], rng, 2.0
        )
    return soxr.resample(sides.T, RATE, 8_000)


def test_the_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: LlmServer, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(QUICK, "adapt", ["--size", "xs", "--set", "fit.steps=6"])
    Path("calls").mkdir()
    for number in range(7):
        soundfile.write(f"calls/call{number}.wav", call(number), 8_000, subtype="PCM_16")
    mifuse("train", str(make_domain("studio", "studio", speakers=3, clips_per_speaker=8)), "-o", "source")
    first, second = re.findall(r"```bash\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    follow(first, server)
    rows = read_manifest(Path("calls/manifest.csv")).clips
    assert {clip.channel for clip in rows} == {"0", "1"} and len(rows) >= 40
    assert all(1 <= clip.end - clip.start <= 15 for clip in rows if clip.end is not None)
    with Path("calls/check.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == 40
    with Path("calls/check.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, listed[0])
        writer.writeheader()
        writer.writerows(
            row | {"label": "angry" if i % 5 == 0 else "neutral"} for i, row in enumerate(listed)
        )
    capsys.readouterr()
    follow(second, server)
    record = json.loads(Path("student/run.json").read_text())
    assert record["verdict"]["checked"] == 40
    shares = record["shares"]
    assert max(shares, key=shares.__getitem__) == "neutral"
    assert len(capsys.readouterr().out.splitlines()) > 7
