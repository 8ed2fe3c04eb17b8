"""Dimensions without emotions, from a manifest of numbers to the device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mifuse.clips.manifest import read_manifest
from mifuse.models.classifier import load_model
from mifuse.models.student import Student
from mifuse.teachers.answers import InvalidAnswerError, parse_all
from mifuse.teachers.prompts import Prompts
from mifuse_runtime import MifuseError, Recognizer
from mifuse_runtime.__main__ import main as runtime
from tests.commands import run
from tests.dimensions import RANGES, TARGETS, export_quickly, samples_of, write_clips

QUICK = ("--size", "xs", "--set", "fit.steps=10", "--set", "fit.steps_per_epoch=5")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of numbers, without a column of labels."""
    labelled = write_clips(tmp_path_factory.mktemp("clips"))
    rows = [line.split(",") for line in labelled.read_text().splitlines()]
    at = rows[0].index("label")
    numbers = labelled.with_name("numbers.csv")
    numbers.write_text("".join(",".join(row[:at] + row[at + 1 :]) + "\n" for row in rows))
    return numbers


@pytest.fixture(scope="module")
def student(manifest: Path) -> Path:
    folder = manifest.parent / "student"
    said = json.loads(run("train", manifest, "-o", folder, *TARGETS, *QUICK, "--json").splitlines()[-1])
    assert -1 <= said["validation_ccc"] <= 1 and "validation_ua" not in said
    return folder


@pytest.fixture(scope="module")
def bundle(manifest: Path, student: Path) -> Path:
    return export_quickly(student, manifest)


def test_a_checkpoint_has_no_emotions(student: Path, manifest: Path) -> None:
    model = load_model(student)
    assert isinstance(model, Student) and model.labels == () and model.dimensions == RANGES
    values = model(torch.from_numpy(samples_of(manifest))[None])
    assert values.shape == (1, 2) and 0 <= values.min() <= values.max() <= 1


def test_labels_none_leaves_labels_out(manifest: Path, tmp_path: Path) -> None:
    labelled = manifest.with_name("m.csv")
    run("train", labelled, "-o", tmp_path / "s", "--labels", "none", *TARGETS, *QUICK)
    assert load_model(tmp_path / "s").labels == ()
    said = run("train", labelled, "-o", tmp_path / "t", "--labels", "none", code=1)
    assert "--targets" in said and not (tmp_path / "t").exists()


def test_the_device_says_numbers_alone(bundle: Path, student: Path, manifest: Path) -> None:
    content = json.loads((bundle / "bundle.json").read_text())
    assert content["labels"] == [] and content["output"]["name"] == "dimensions"
    assert content["quality"]["int8"]["concordance"] > 0 and content["quality"]["fp32"]["ccc"] is not None
    assert "# Dimensions from speech: arousal, valence" in (bundle / "README.md").read_text()
    samples = samples_of(manifest)
    with torch.no_grad():
        values = load_model(student)(torch.from_numpy(samples)[None])
    recognizer = Recognizer.load(bundle, precision="fp32")
    found = recognizer.predict(samples, gate=False)
    assert (found.label, found.state, found.scores) == ("speech", "speech", {})
    assert found.dimensions["arousal"] == pytest.approx(1 + 6 * values[0, 0].item(), abs=0.2)  # trims silence
    quiet = recognizer.predict(np.zeros(16_000, np.float32))
    assert (quiet.label, quiet.scores, quiet.dimensions) == ("no speech", {}, {})
    (together,) = recognizer.predict_batch([samples], gate=False)
    assert together.dimensions == pytest.approx(found.dimensions)


def test_streams_timelines_and_known_speakers(bundle: Path, manifest: Path) -> None:
    recognizer = Recognizer.load(bundle, precision="fp32")
    audio = np.concatenate([samples_of(manifest, i) for i in range(9)])
    with recognizer.stream(window=2.0, hop=1.0) as stream:
        states = {window.state for window in stream.feed(audio)}
    assert states <= {"speech", "no speech"} and "speech" in states
    timeline = recognizer.timeline(audio)
    assert set(timeline.shares) == {"speech"}
    said = timeline.to_dict(recognizer.labels)
    assert said["label"] == "speech" and set(said["dimensions"]) == set(RANGES)
    silence = recognizer.timeline(np.zeros(16_000, np.float32)).summary(recognizer.labels)
    assert silence.label == "no speech"
    speaker = recognizer.speaker()
    known = [recognizer.predict(samples_of(manifest, i), speaker=speaker, gate=False) for i in range(9)]
    assert (
        speaker.clips == 9 and known[8].dimensions != recognizer.predict(samples_of(manifest, 8)).dimensions
    )
    assert all(1 <= one.dimensions["arousal"] <= 7 for one in known)


def test_what_asks_for_emotions_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recognizer = Recognizer.load(bundle)
    with pytest.raises(MifuseError, match="dimensions alone"):
        recognizer.subset(["angry", "sad"])
    with pytest.raises(MifuseError, match="dimensions alone"):
        recognizer.grouped({"bad": ["angry", "sad"]})
    with pytest.raises(MifuseError, match="dimensions alone"):
        Recognizer.load(bundle, shares={"sad": 0.5})


def test_commands(bundle: Path, student: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in (bundle, student):
        said = json.loads(run("evaluate", model, manifest, "--json"))
        assert "ua" not in said and said["dimensions"]["arousal"]["n"] == 16
    labelled = json.loads(run("evaluate", bundle, manifest.with_name("m.csv"), "--json"))
    assert labelled["dimensions"] == said["dimensions"] or labelled["dimensions"]["arousal"]["n"] == 16
    assert "arousal: CCC" in run("evaluate", bundle, manifest)
    assert "ok" in run("verify", bundle, manifest, "--student", student, "--max-drop", "20")
    clip = str(manifest.parent / "c00.wav")
    for form in ((), ("--json",), ("--csv",), ("--vtt", "--timeline"), ("--rttm", "--timeline")):
        assert runtime(["predict", str(bundle), clip, *form]) == 0
        assert "speech" in capsys.readouterr().out
    assert runtime(["info", str(bundle)]) == 0 and runtime(["verify", str(bundle)]) == 0
    assert "arousal, from 1 to 7" in capsys.readouterr().out


def test_what_cannot_be_learnt_or_asked_is_refused(manifest: Path, tmp_path: Path) -> None:
    rows = [line.split(",") for line in manifest.read_text().splitlines()]
    at = rows[0].index("arousal")
    same = manifest.with_name("same.csv")
    same.write_text(
        "".join(
            ",".join([*row[:at], "4" if i else row[at], *row[at + 1 :]]) + "\n" for i, row in enumerate(rows)
        )
    )
    said = run("train", same, "-o", tmp_path / "s", *TARGETS, *QUICK, code=1)
    assert "the same arousal" in said and not (tmp_path / "s").exists()
    ask = ("label", manifest, "--teacher", "openai", "--model", "m", "--price", "0", "--labels", "none")
    ask = (*ask, "--store", tmp_path / "d.db", "--dry-run")
    assert "--targets" in run(*ask, code=2)
    assert "give a number of draws" in run(*ask, *TARGETS, "--draws", "auto", code=2)
    assert '"arousal": …' in run(*ask, *TARGETS)


def test_a_model_of_nothing_is_refused() -> None:
    from mifuse.errors import MifuseError as Refused

    with pytest.raises(Refused, match="neither emotions nor dimensions"):
        Student((), dimensions={})


def write_draws(manifest: Path, name: str = "draws.jsonl", teacher: str = "lalm") -> Path:
    """Two draws of each clip, numbers alone: the truth, and a little beside it."""
    rows = []
    for clip in read_manifest(manifest).clips:
        arousal = float(clip.extra["arousal"])
        for draw in range(2):
            numbers = {"arousal": round(min(7.0, arousal + 0.1 * draw), 2), "valence": 0.2}
            rows.append({"path": clip.name, "teacher": teacher, "draw": draw, "dimensions": numbers})
    file = manifest.with_name(name)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_lalm_is_asked_for_numbers_alone() -> None:
    prompts = Prompts((), dimensions=tuple(RANGES.items()))
    first, second = prompts.get(0), prompts.get(1)
    for one in (first, second):
        assert '"arousal", from 1 (very calm) to 7' in one.text and "emotion" not in one.system + one.text
    assert first.text != second.text and first.schema()["required"] == ["arousal", "valence"]
    assert prompts.get(0) == first and prompts.hash({}) != Prompts(dimensions=prompts.dimensions).hash({})
    said = '{"valence": 0.5, "arousal": 6}'
    assert parse_all(said, (), RANGES) == ({}, {"valence": 0.5, "arousal": 6.0})
    with pytest.raises(InvalidAnswerError, match="unknown label 'angry'"):
        parse_all('{"valence": 0.5, "arousal": 6, "angry": 1}', (), RANGES)
    with pytest.raises(InvalidAnswerError, match="no number for arousal"):
        parse_all('{"valence": 0.5}', (), RANGES)


def test_draws_of_numbers_alone_are_kept_and_taught(manifest: Path, student: Path, tmp_path: Path) -> None:
    draws, store = write_draws(manifest), tmp_path / "d.db"
    said = run("label", manifest, "--teacher", f"replay:{draws}", "--store", store, "--json")
    assert json.loads(said)["added"] == 32
    assert "arousal: 32 draws" in run("draws", "info", store)
    assert "mean MI" not in run("draws", "info", draws)
    quick = ("--set", "fit.steps=20", "--set", "fit.steps_per_epoch=5", "--set", "refresh=1", "--size", "xs")
    words = ("adapt", "--source", student, "--target", manifest, "--draws", store, *quick)
    said = json.loads(run(*words, "-o", tmp_path / "s", "--json"))
    assert 0 < said["dimensions"]["arousal"]["shares"]["classifier"] < 1 and said["verdict"] is None
    assert load_model(tmp_path / "s").labels == ()
    run("report", tmp_path / "s")
    page = (tmp_path / "s" / "report.html").read_text()
    assert "<h2>Dimensions</h2>" in page and "1 to 7" in page and "Confusions" not in page
    alone = ("adapt", "--target", manifest, "--draws", draws, *TARGETS, *quick)
    text = run(*alone, "-o", tmp_path / "t")
    assert "arousal: " in text and "predicted" not in text
    for more, why in ((("--shares", "sad=.5"), "--shares is about emotions"), ((), "--targets")):
        wrong = ("adapt", "--target", manifest, "--draws", draws, *quick, *(TARGETS if more else ()), *more)
        assert why in run(*wrong, "-o", tmp_path / "u", code=1) and not (tmp_path / "u").exists()


def test_one_teacher_may_say_emotions_and_another_numbers(manifest: Path, tmp_path: Path) -> None:
    numbers, emotions = write_draws(manifest), tmp_path / "emotions.jsonl"
    rows = [
        {"path": clip.name, "teacher": "one", "draw": draw, "probs": {"angry": 0.3 + 0.1 * draw, "sad": 0.6}}
        for clip in read_manifest(manifest).clips
        for draw in range(2)
    ]
    emotions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = ("--set", "fit.steps=5", "--set", "refine.rounds=0", "--set", "verdict=false", "--size", "xs")
    draws = ("--draws", emotions, "--draws", numbers, "--labels", "angry,sad")
    words = ("adapt", "--target", manifest, *draws, *TARGETS, *quick)
    run(*words, "-o", tmp_path / "s")
    model = load_model(tmp_path / "s")
    assert model.labels == ("angry", "sad") and model.dimensions == RANGES
