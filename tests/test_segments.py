"""Long recordings as rows of a manifest, and everything that is done with rows, on parts of calls."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest, write_manifest
from mifuse.demo.synth import DOMAINS, RATE, make_speaker, synthesise
from mifuse.exporting.calibration import calibration_clips, read_clips
from mifuse.models.student import Student
from mifuse.teachers.base import Source
from mifuse.teachers.jsonl import json_line
from mifuse.voices.turns import voices_of_turns
from mifuse_runtime.timeline import LONGEST, SHORTEST


def turns(count: int, seed: int, first: float) -> np.ndarray:
    """A channel: turns of 1.5 to 4 s with as much silence between them, the first after `first` seconds."""
    rng = np.random.default_rng(seed)
    speaker = make_speaker(DOMAINS["phone"], rng)
    parts = [np.zeros(int(first * RATE))]
    for number in range(count):
        length = rng.uniform(1.5, 4.0)
        clip = synthesise(LABELS[number % len(LABELS)], speaker, DOMAINS["phone"], rng, length)
        parts += [clip, np.zeros(int((length + 0.8) * RATE))]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two calls of two channels, one clip that is short already, one of silence, one that is cut short."""
    folder = tmp_path_factory.mktemp("calls")
    for number in range(2):
        left, right = turns(6, 2 * number, 0.3), turns(6, 2 * number + 1, 2.0)
        size = max(left.size, right.size)
        both = np.stack([np.pad(side, (0, size - side.size)) for side in (left, right)], axis=1)
        soundfile.write(folder / f"call {number}.wav", both, RATE)
    soundfile.write(folder / "short.flac", turns(1, 9, 0.2), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(20 * RATE), RATE)
    (folder / "broken.wav").write_bytes((folder / "call 0.wav").read_bytes()[:90_000])
    return folder


def mifuse(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.stdout


def prepared(calls: Path, *options: object) -> dict[str, Any]:
    done = mifuse("prepare", calls, "-o", calls / "m.csv", "--force", "--json", *options)
    found = dict(json.loads(done))
    found["left_out"].pop(".csv", None)
    return found


def test_calls_become_rows_of_each_channel(calls: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = prepared(calls, "--segment", "--channel", "each")
    assert found["left_out"] == {"cannot be read": 1, "no speech": 1}
    assert "broken.wav: the file is cut short" in caplog.text
    clips = read_manifest(calls / "m.csv").clips
    whole, *rest = sorted(clips, key=lambda clip: clip.start is not None)
    assert (whole.name, whole.key[1:], whole.speaker) == ("short.flac", (None, None, "0"), None)
    assert {clip.speaker for clip in rest} == {f"call {n}-{c}" for n in (0, 1) for c in (0, 1)}
    for clip in rest:
        assert (
            clip.start is not None
            and clip.end is not None
            and clip.speaker == f"{clip.path.stem}-{clip.channel}"
        )
        assert SHORTEST <= round(clip.end - clip.start, 3) <= LONGEST
    counts = Counter((clip.name, clip.channel) for clip in rest)
    assert all(6 <= count <= 9 for count in counts.values()), counts
    cache = AudioCache()
    assert len({cache.hash(clip) for clip in clips}) == len(clips)
    before = (calls / "m.csv").read_bytes()
    prepared(calls, "--segment", "--channel", "each")
    assert (calls / "m.csv").read_bytes() == before


def test_turns_are_grouped_by_voice(calls: Path) -> None:
    prepared(calls, "--segment", "--channel", "each", "--voices")
    clips = [clip for clip in read_manifest(calls / "m.csv").clips if clip.start is not None]
    heard = {(clip.path.stem, clip.channel): [] for clip in clips}
    for clip in clips:
        whose, _, number = str(clip.speaker).partition(" voice ")
        assert whose == f"{clip.path.stem}-{clip.channel}"
        heard[clip.path.stem, clip.channel].append(int(number))
    for numbers in heard.values():
        assert numbers[0] == 1 and max(numbers) == len(set(numbers)) <= 3, heard
    prepared(calls, "--segment", "--voices")
    speakers = {clip.speaker for clip in read_manifest(calls / "m.csv").clips if clip.start is not None}
    assert {"call 0 voice 1", "call 1 voice 1"} <= speakers
    refused = CliRunner().invoke(main, ["prepare", str(calls), "-o", str(calls / "x.csv"), "--voices"])
    assert refused.exit_code == 2 and "add --segment" in refused.output


def test_voices_of_a_channel() -> None:
    rng = np.random.default_rng(0)
    people = rng.standard_normal((3, 64))
    who = [2, 0, 0, 2, 1, 0, 1, 2, 1]
    embeddings = people[who] + 0.3 * rng.standard_normal((len(who), 64))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert voices_of_turns(embeddings) == [1, 2, 2, 1, 3, 2, 3, 1, 3]
    assert voices_of_turns(embeddings[[1, 2, 5]]) == [1, 1, 1] and voices_of_turns(embeddings[:1]) == [1]
    assert voices_of_turns(embeddings[:0]) == []


def test_one_channel_of_whole_recordings(calls: Path) -> None:
    assert prepared(calls, "--channel", "left")["left_out"] == {}
    clips = read_manifest(calls / "m.csv").clips
    assert {clip.channel for clip in clips} == {"left"} and {clip.start for clip in clips} == {None}
    assert "use mix, left, right or a number from 0, or each" in CliRunner().invoke(
        main, ["prepare", str(calls), "-o", str(calls / "x.csv"), "--channel", "both"]
    ).output  # fmt: skip


def test_the_whole_way_on_parts_of_calls(calls: Path, tmp_path: Path) -> None:
    prepared(calls, "--segment", "--channel", "each")
    manifest = calls / "m.csv"
    clips = read_manifest(manifest).clips
    rng = np.random.default_rng(0)
    lines = [
        json_line(clip, Source("t"), draw, dict(zip(LABELS, rng.dirichlet(np.ones(4)).tolist(), strict=True)))
        for draw in range(2)
        for clip in clips
    ]
    (tmp_path / "draws.jsonl").write_text("".join(lines), encoding="utf-8")
    done = mifuse(
        "label", manifest, "--teacher", f"replay:{tmp_path / 'draws.jsonl'}",
        "--store", tmp_path / "d.db", "--json",
    )  # fmt: skip
    assert json.loads(done)["added"] == 2 * len(clips)
    mifuse("draws", "export", tmp_path / "d.db", "-o", tmp_path / "again.jsonl", "--manifest", manifest)
    assert sorted((tmp_path / "again.jsonl").read_text(encoding="utf-8").splitlines(True)) == sorted(lines)
    torch.manual_seed(0)
    Student(size="xs").save_pretrained(tmp_path / "source")
    mifuse(
        "adapt", "--source", tmp_path / "source", "--target", manifest, "--draws", tmp_path / "d.db",
        "-o", tmp_path / "student", "--size", "xs", "--set", "fit.steps=4", "--set", "classifier_draws=2",
    )  # fmt: skip
    assert len((tmp_path / "student" / "predictions.csv").read_text().splitlines()) == 1 + len(clips)
    mifuse("choose", manifest, "-o", calls / "few.csv", "--clips", 4)
    few = read_manifest(calls / "few.csv").clips
    assert {clip.key for clip in few} < {clip.key for clip in clips}
    named = [replace(clip, label=LABELS[i % 4]) for i, clip in enumerate(few)]
    write_manifest(calls / "few.csv", named)
    scores = json.loads(mifuse("evaluate", tmp_path / "student", calls / "few.csv", "--json"))
    assert scores["n"] == 4
    cache = AudioCache()
    samples = read_clips(calibration_clips(read_manifest(manifest), 8), cache, iter)
    assert len(samples) == 8 and max(map(len, samples)) <= LONGEST * RATE
    mifuse("export", tmp_path / "student", "-o", tmp_path / "bundle", "--format", "onnx", "--int8",
           "--calibration", manifest, "--max-drop", 100)  # fmt: skip
    assert (tmp_path / "bundle" / "model.int8.onnx").is_file()
