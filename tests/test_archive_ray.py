"""The example for archives, on a real Ray of one node: killed in the middle, every clip is answered once."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mifuse_runtime import Recognizer, read_audio
from tests.bundles import RATE, make_bundle, speech

ROOT = Path(__file__).resolve().parent.parent
CLIPS = 900
WITH_RAY = importlib.util.find_spec("ray") is not None

pytestmark = pytest.mark.skipif(
    not WITH_RAY and "MIFUSE_RAY" not in os.environ,
    reason="Ray is not installed and MIFUSE_RAY is not set: the test that installs it is skipped",
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has Ray; with MIFUSE_RAY an environment of its own, from the package index."""
    if WITH_RAY:
        return sys.executable
    folder = tmp_path_factory.mktemp("ray") / "venv"
    venv.create(folder, with_pip=True)
    found = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [found, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "ray[data]", "numpy", "onnxruntime"], check=True)
    return str(found)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle and an archive of few recordings under many names, one of them broken."""
    folder = tmp_path_factory.mktemp("archive")
    make_bundle(folder / "bundle")
    archive = folder / "archive" / "deep"
    archive.mkdir(parents=True)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", speech(1.0) * (0.3 + 0.3 * number), RATE)
    for number in range(CLIPS):
        (archive / f"{number:04}.wav").hardlink_to(folder / f"{number % 3}.wav")
    (folder / "archive" / "broken.wav").write_bytes(b"RIFF")
    return folder


def started(python: str, place: Path, *more: object, archive: str = "archive") -> subprocess.Popen[str]:
    command = [python, ROOT / "docs" / "examples" / "archive_ray.py", "bundle", archive, "answers", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=place,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finished(python: str, place: Path, *more: object, archive: str = "archive") -> tuple[int, str]:
    """Exit code and output of a whole run; Ray itself gives a busy machine 30 s to start, not more."""
    for _ in range(3):
        run = started(python, place, *more, archive=archive)
        output, _ = run.communicate(timeout=300)
        if "timed out during startup" not in output:
            break
    return run.returncode, output


def shards(place: Path) -> dict[str, int]:
    """Names and times of the finished shards."""
    return {path.name: path.stat().st_mtime_ns for path in (place / "answers").glob("*.jsonl")}


def test_killed_and_started_again_it_answers_every_clip_once(python: str, place: Path) -> None:
    run = started(python, place, "--actors", 2, "--clips", 10)
    while len(shards(place)) < 5:
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.01)
    run.kill()
    run.communicate()
    kept = shards(place)
    assert 5 <= len(kept) < CLIPS // 10, "it was killed too late"
    time.sleep(2.0)  # its actors end with it
    assert len(shards(place)) < len(kept) + 10, "its actors went on"
    kept = shards(place)
    (place / "answers" / "of-a-killed-run.part").touch()

    code, output = finished(python, place, "--actors", 2, "--clips", 10)
    assert code == 0, output
    assert f"{CLIPS + 1 - 10 * len(kept)}/" in output, "it did not go on where it was"
    assert kept.items() <= shards(place).items(), "a finished shard was written again"
    assert not list((place / "answers").glob("*.part"))
    found = [json.loads(line) for name in shards(place) for line in (place / "answers" / name).open()]
    archive = place / "archive"
    assert sorted(row["path"] for row in found) == sorted(
        path.relative_to(archive).as_posix() for path in archive.rglob("*.wav")
    )
    recognizer = Recognizer.load(place / "bundle")
    wanted = [recognizer.predict(read_audio(place / f"{number}.wav")) for number in range(3)]
    for row in found:
        if row["path"] == "broken.wav":
            assert "broken.wav: " in row["error"]
            continue
        prediction = wanted[int(Path(row["path"]).stem) % 3]
        assert row["label"] == prediction.label
        assert row["scores"] == pytest.approx(prediction.scores, abs=1e-6)


def test_a_grown_archive_costs_what_is_new(python: str, place: Path) -> None:
    before = shards(place)
    soundfile.write(place / "archive" / "deep" / "0000-new.wav", np.float32(0.5) * speech(1.0), RATE)
    code, output = finished(python, place, "--actors", 1)
    assert (code, "1/1 clips" in output) == (0, True), output
    assert before.items() <= shards(place).items()
    make_bundle(place / "bundle", labels=("calm", "tense"))
    code, output = finished(python, place)
    assert (code, "holds answers of another bundle or way" in output) == (2, True), output
    with (place / "bundle" / "model.onnx").open("ab") as file:
        file.write(b"x")
    code, output = finished(python, place)
    assert (code, "model.onnx is not as exported" in output) == (2, True), output


def test_timelines_of_both_sides_of_calls(python: str, place: Path, tmp_path: Path) -> None:
    sides = np.stack([speech(4.0), np.zeros(4 * RATE, np.float32)], axis=1)
    (tmp_path / "calls").mkdir()
    soundfile.write(tmp_path / "calls" / "a.wav", sides, RATE)
    make_bundle(tmp_path / "bundle")
    code, output = finished(python, tmp_path, "--actors", 1, "--timeline", 0, 1, archive="calls")
    assert code == 0, output
    (shard,) = (tmp_path / "answers").glob("*.jsonl")
    (row,) = [json.loads(line) for line in shard.open()]
    recognizer = Recognizer.load(tmp_path / "bundle")
    wanted = recognizer.timeline(read_audio(tmp_path / "calls" / "a.wav", channel=0))
    found, silent = row["timelines"]["0"], row["timelines"]["1"]
    assert [(part["start"], part["state"]) for part in found["segments"]] == [
        (part.start, part.state) for part in wanted.segments
    ]
    assert found["segments"] and not silent["segments"]
    code, output = finished(python, tmp_path, archive="calls")
    assert (code, "another bundle or way of asking" in output) == (2, True), output
