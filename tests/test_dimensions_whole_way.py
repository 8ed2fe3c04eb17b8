"""Dimensions from a manifest to the device, beside emotions: train, evaluate, export in 8 bits, predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.models.classifier import load_model
from mifuse.models.student import Student
from mifuse_runtime import Recognizer
from mifuse_runtime.__main__ import main as runtime
from tests.commands import run
from tests.dimensions import RANGES, TARGETS, export_quickly, samples_of, write_clips


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def student(manifest: Path) -> Path:
    folder = manifest.parent / "student"
    quick = ("--size", "xs", "--set", "fit.steps=30", "--set", "fit.steps_per_epoch=10")
    said = run("train", manifest, "-o", folder, *TARGETS, *quick, "--json")
    assert -1 <= json.loads(said.splitlines()[-1])["validation_ccc"] <= 1
    return folder


@pytest.fixture(scope="module")
def bundle(manifest: Path, student: Path) -> Path:
    return export_quickly(student, manifest)


def test_a_checkpoint_keeps_dimensions_and_ranges(student: Path, manifest: Path) -> None:
    model = load_model(student)
    assert isinstance(model, Student) and model.dimensions == RANGES
    probs, values = model(torch.from_numpy(samples_of(manifest))[None])
    assert probs.shape == (1, 4) and values.shape == (1, 2) and 0 <= values.min() <= values.max() <= 1


def test_the_device_says_them_in_the_users_range(bundle: Path, student: Path, manifest: Path) -> None:
    samples = samples_of(manifest)
    with torch.no_grad():
        _, values = load_model(student)(torch.from_numpy(samples)[None])
    float32 = Recognizer.load(bundle, precision="fp32")
    assert float32.dimensions == RANGES
    found = float32.predict(samples, gate=False)
    assert found.dimensions["arousal"] == pytest.approx(1 + 6 * values[0, 0].item(), abs=0.2)  # trims silence
    assert sum(found.scores.values()) == pytest.approx(1)
    (together,) = float32.predict_batch([samples], gate=False)
    assert together.dimensions == pytest.approx(found.dimensions)
    assert float32.predict(np.zeros(16_000, np.float32)).dimensions == {}
    assert (
        float32.grouped({"low": ["sad", "neutral"]}).predict(samples, gate=False).dimensions
        == found.dimensions
    )
    int8 = Recognizer.load(bundle, precision="int8").predict(samples, gate=False)
    assert int8.dimensions["arousal"] == pytest.approx(found.dimensions["arousal"], abs=0.6)


def test_streams_timelines_and_known_speakers_have_them(bundle: Path, manifest: Path) -> None:
    recognizer = Recognizer.load(bundle, precision="fp32")
    audio = np.concatenate([samples_of(manifest, i) for i in range(9)])
    with recognizer.stream(window=2.0, hop=1.0) as stream:
        windows = stream.feed(audio)
    assert {name for window in windows for name in window.dimensions} == {"arousal", "valence"}
    timeline = recognizer.timeline(audio)
    spent = [segment.end - segment.start for segment in timeline.segments]
    mean = np.average([segment.dimensions["valence"] for segment in timeline.segments], weights=spent)
    assert timeline.dimensions["valence"] == pytest.approx(mean)
    assert timeline.to_dict(recognizer.labels)["dimensions"]["valence"] == pytest.approx(mean)
    speaker = recognizer.speaker()
    known = [recognizer.predict(samples_of(manifest, i), speaker=speaker, gate=False) for i in range(9)]
    assert speaker.clips == 9 and all(RANGES["arousal"][0] <= one.dimensions["arousal"] <= 7 for one in known)


def test_the_gate_measured_them(bundle: Path) -> None:
    content = json.loads((bundle / "bundle.json").read_text())
    assert content["dimensions"] == {"arousal": [1.0, 7.0], "valence": [-1.0, 1.0]}
    int8 = content["quality"]["int8"]
    assert (
        0 < int8["concordance"] <= 1
        and int8["ccc_drop"] <= 0.2
        and content["quality"]["fp32"]["ccc"] is not None
    )
    assert "arousal (1 to 7), valence (-1 to 1)" in (bundle / "README.md").read_text()


def test_evaluate_scores_both_heads(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    said = json.loads(run("evaluate", bundle, manifest, "--json"))
    assert said["n"] == 16 and said["dimensions"]["valence"]["n"] == 15
    text = run("evaluate", manifest.parent / "student", manifest)
    assert "UA" in text and "arousal: CCC" in text and "on 1 to 7" in text
    rows = manifest.read_text().splitlines()
    unlabelled = manifest.with_name("numbers.csv")
    cut = [line.split(",") for line in rows]
    unlabelled.write_text("\n".join(",".join((row[0], row[3])) for row in cut) + "\n")
    assert rows[0].split(",")[3] == "arousal"
    alone = json.loads(run("evaluate", bundle, unlabelled, "--json"))
    assert "ua" not in alone and alone["dimensions"]["arousal"]["n"] == 16
    wide = json.loads(run("evaluate", bundle, unlabelled, "--json", "--range", "1:9"))
    assert wide["dimensions"]["arousal"]["mae"] != alone["dimensions"]["arousal"]["mae"]
    assert "from 1 to 3" in run("evaluate", bundle, unlabelled, "--range", "1:3", code=1)


def test_the_device_command_prints_them(
    bundle: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(manifest.parent / "c00.wav")
    assert runtime(["predict", str(bundle), clip]) == 0
    assert "; arousal " in capsys.readouterr().out
    assert runtime(["predict", str(bundle), clip, "--csv"]) == 0
    head, row = (line.split(",") for line in capsys.readouterr().out.splitlines())
    assert head[-2:] == ["arousal", "valence"] and 1 <= float(row[-2]) <= 7
    assert runtime(["predict", str(bundle), clip, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["dimensions"]) == {"arousal", "valence"}
    assert runtime(["info", str(bundle)]) == 0 and "arousal, from 1 to 7" in capsys.readouterr().out
    assert runtime(["verify", str(bundle)]) == 0


def test_verify_holds_the_models_to_their_student(bundle: Path, student: Path, manifest: Path) -> None:
    assert "ok" in run("verify", bundle, manifest, "--student", student, "--max-drop", "20")


def test_a_column_without_a_number_is_refused(manifest: Path, tmp_path: Path) -> None:
    head, *rows = [line.split(",") for line in manifest.read_text().splitlines()]
    empty = manifest.with_name("empty.csv")
    empty.write_text("\n".join(",".join([*row[:-1], ""]) for row in rows).join([",".join(head) + "\n", "\n"]))
    said = run("train", empty, "-o", tmp_path / "s", *TARGETS, code=1)
    assert "has a number of valence" in said and not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--targets", "arousal"), "state another range, as in --range arousal=0:1"),
        (("--targets", "dominance"), "no column 'dominance'"),
        (("--targets", "arousal", "--range", "1-7"), "LOWEST:HIGHEST"),
        (("--range", "1:7"), "--targets"),
        (("--targets", "arousal", "--encoder", "hf:x"), "beside --encoder"),
    ],
)
def test_bad_targets_are_refused(manifest: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(main, ["train", str(manifest), "-o", str(tmp_path / "s"), *words])
    assert done.exit_code in (1, 2) and said in " ".join(done.output.split())
    assert not (tmp_path / "s").exists() and done.output.count("Error") <= 1
