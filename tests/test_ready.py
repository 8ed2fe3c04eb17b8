"""The ready bundle: as its command left it, honest about what it is, and of use to an app developer."""

from __future__ import annotations

import configparser
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import mifuse_runtime
from mifuse_runtime import Recognizer, bundle, read_audio
from mifuse_runtime.__main__ import main
from mifuse_runtime.command import demo

PARTS = Path(__file__).resolve().parent.parent / "runtime" / "demo"
READY = PARTS / "mifuse_demo"
TURNS = ("sad", "neutral", "happy", "angry")  # of the call


def test_it_is_as_made_and_says_what_it_is() -> None:
    found = bundle.load(READY / "bundle")  # checks every hash
    assert found.demo
    assert list(found.models) == [found.default] == ["int8"]
    assert {file.name for file in (READY / "bundle").iterdir()} == {*found.files, "bundle.json", "README.md"}
    assert "synthetic speech alone" in (READY / "bundle" / "README.md").read_text(encoding="utf-8")
    assert sum(file.stat().st_size for file in READY.rglob("*.*")) < 500_000


def test_it_recognises_the_turns_of_its_call() -> None:
    recognizer = Recognizer.load(READY / "bundle")
    samples = read_audio(READY / "call.wav", recognizer.sample_rate)
    found = recognizer.timeline(samples)
    assert len(found.segments) == len(TURNS)
    right = [row.label == label for row, label in zip(found.segments, TURNS, strict=True)]
    assert sum(right) >= 3
    stream = recognizer.stream()
    streamed = stream.feed(samples) + stream.close()
    answers = [recognizer.predict(samples), recognizer.predict(np.zeros(16_000, np.float32)), *streamed]
    answers += [*found.segments, found.summary(recognizer.labels)]
    answers += recognizer.subset(["sad", "angry"]).predict_batch([samples])
    assert len(answers) > 20
    assert all(answer.demo for answer in answers)
    assert recognizer.timeline(np.zeros(16_000, np.float32)).summary(recognizer.labels).demo


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "try"
    assert main(["demo", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert all(f" {label};" in said for label in TURNS[:1])
    assert "trained on synthetic speech" in said
    assert f"mifuse-runtime predict {out}/bundle your.wav" in said
    assert sorted(file.name for file in out.iterdir()) == ["bundle", "call.wav"]
    assert main(["demo", "-o", str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["demo"] is True
    for words in (["predict", str(out / "bundle"), str(out / "call.wav")], ["info", str(out / "bundle")]):
        assert main(words) == 0
        printed = capsys.readouterr()
        assert "trained on synthetic speech" in printed.out + printed.err


def test_without_it_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "mifuse_runtime" / "command" / "demo.py"))
    assert main(["demo"]) == 1
    assert "pip install ./runtime/demo" in capsys.readouterr().err
    shutil.copytree(READY, tmp_path / "mifuse_demo")
    monkeypatch.syspath_prepend(tmp_path)
    assert demo.ready() == tmp_path / "mifuse_demo"


def test_its_distribution_has_the_same_version() -> None:
    settings = configparser.ConfigParser()
    settings.read(PARTS / "setup.cfg")
    assert settings["metadata"]["version"] == mifuse_runtime.__version__
