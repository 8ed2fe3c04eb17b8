"""Labels of one's own, from recordings to the device: the commands of docs/labels.md, and eight emotions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.clips.manifest import read_manifest
from mifuse.demo import synth
from mifuse_runtime import Recognizer
from tests.llm_server import LlmServer
from tests.tutorials import follow, mifuse

DOCS = Path(__file__).parents[1] / "docs" / "labels.md"
EIGHT = ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def speak(folder: Path, names: dict[str, tuple[str, int]]) -> None:
    """Files of name -> emotion of the synthesis and number of the speaker."""
    for name, (emotion, speaker) in names.items():
        rng = np.random.default_rng([speaker, len(name)])
        domain = synth.DOMAINS["phone"]
        voice = synth.make_speaker(domain, np.random.default_rng(speaker))
        clip = synth.synthesise(emotion, voice, domain, rng, seconds=1.2)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, clip, 16_000)


def test_the_commands_of_the_page(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: LlmServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    emotions = list(synth.EMOTIONS)
    speak(tmp_path, {f"calls/c{i:02}.wav": (emotions[i % 4], i % 3) for i in range(16)})
    (block,) = re.findall(r"```bash\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    said = follow(block, server)
    assert "By frustrated is meant: annoyed, impatient, not shouting." in said[1]
    assert "frustrated" in said[3]
    assert Recognizer.load(tmp_path / "bundle").labels == ("calm", "fear", "frustrated", "happy")
    out = capsys.readouterr().out
    assert out.count("negative") >= 16 and "frustrated" not in out
    question = server.requests[0]["messages"][1]["content"][0]["text"]
    assert "By calm is meant: at ease, nothing is wrong." in question
    assert set(json.loads(Path("student/run.json").read_text())["labels"]) == {
        *("calm", "fear", "frustrated", "happy"),
    }


def test_eight_emotions_from_prepare_to_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: LlmServer
) -> None:
    cues = np.random.default_rng(0).normal(0, 1, (8, len(synth.CUES)))
    monkeypatch.setattr(synth, "EMOTIONS", dict(zip(EIGHT, map(tuple, cues), strict=True)))
    codes = {
        "neutral": 1,
        "calm": 2,
        "happy": 3,
        "sad": 4,
        "angry": 5,
        "fear": 6,
        "disgust": 7,
        "surprise": 8,
    }
    for folder, actors in (("source", (1, 2, 3)), ("target", (11, 12))):
        names = {
            f"03-01-{codes[emotion]:02}-01-01-{take:02}-{actor:02}.wav": (emotion, actor)
            for actor in actors
            for emotion in EIGHT
            for take in (1, 2)
        }
        speak(tmp_path / folder, names)
        mifuse("prepare", f"{tmp_path}/{folder}", "-o", f"{tmp_path}/{folder}/m.csv", "--labels", "all")
    assert read_manifest(tmp_path / "source/m.csv").labels == EIGHT
    source, target, store = tmp_path / "source/m.csv", tmp_path / "target/m.csv", tmp_path / "d.db"
    mifuse("train", f"{source}", "-o", f"{tmp_path}/classifier")
    mifuse(
        "label", f"{target}", "--teacher", "openai", "--model", "m", "--price", "1,1", "--yes",
        "--base-url", f"{server.url}/v1", "--store", f"{store}", "--draws", "4",
    )  # fmt: skip
    assert "calm" in mifuse("draws", "info", f"{store}", "--manifest", f"{target}")
    mifuse(
        "adapt", "--source", f"{tmp_path}/classifier", "--target", f"{target}", "--draws", f"{store}",
        "-o", f"{tmp_path}/student",
    )  # fmt: skip
    mifuse("export", f"{tmp_path}/student", "-o", f"{tmp_path}/bundle", "--int8", "--max-drop", "100")
    recognizer = Recognizer.load(tmp_path / "bundle")
    assert recognizer.labels == EIGHT
    samples = soundfile.read(read_manifest(target).clips[0].path, dtype="float32")[0]
    assert set(recognizer.predict(samples).scores) == set(EIGHT)
    assert set(recognizer.subset(["angry", "calm"]).predict(samples).scores) == {"angry", "calm"}
    scored = json.loads(
        mifuse(
            "evaluate", f"{tmp_path}/bundle", f"{target}", "--json",
            "--group", "negative=angry+disgust+fear+sad", "--group", "other=calm+happy+neutral+surprise",
        )
    )  # fmt: skip
    assert scored["labels"] == ["negative", "other"] and scored["n"] == 32
    assert "expected calm, happy" not in mifuse("report", f"{tmp_path}/student")
    # A classifier of eight is no source where four are asked for: both sets are said.
    done = CliRunner().invoke(
        main,
        [
            *("adapt", "--source", f"{tmp_path}/classifier", "--target", f"{target}", "--draws", f"{store}"),
            *("-o", f"{tmp_path}/other", "--labels", "angry,happy,neutral,sad"),
        ],
    )
    assert (
        done.exit_code == 1
        and "knows the labels angry, happy, neutral, sad, expected angry, calm" in done.output
    )
