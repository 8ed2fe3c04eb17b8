"""`mifuse export`: the whole way from a folder, which clips it takes, and its one-line errors."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.labels import LABELS, Naming
from mifuse.clips.manifest import read_manifest
from mifuse.commands.export import compression, speed
from mifuse.exporting.calibration import calibration_clips, judges, probe_clips, stratified
from mifuse.exporting.compress import DISTIL
from mifuse.exporting.student import export_student
from mifuse.models.classifier import load_model
from mifuse.models.student import Student
from mifuse_export import ExportConfig
from mifuse_runtime import bundle as bundles


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student, and a target manifest with both splits."""
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    Student(size="xs").save_pretrained(folder / "student")
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for i in range(12):
        samples = 0.1 * rng.standard_normal(SAMPLE_RATE // 2 + 2000 * i)
        soundfile.write(folder / f"{i}.wav", samples, SAMPLE_RATE)
        lines.append(f"{i}.wav,{LABELS[i % 4]},{'adapt' if i % 3 else 'test'}")
    (folder / "target.csv").write_text("\n".join(lines))
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def refused(result: Result, code: int = 1) -> str:
    assert result.exit_code == code, result.output
    lines = result.output.strip().splitlines()
    assert code == 2 or len(lines) == 1
    return lines[-1]


def test_export_and_print_json(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    result = run(
        place / "student",
        "-o",
        out,
        "--int8",
        "--calibration",
        place / "target.csv",
        "--json",
        "--force-int8",
        "--budget-kb",
        1000,  # holds as it is
        "--budget-ms",
        1000,
        "--max-drop",
        90,
    )
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    bundle = bundles.load(out)
    assert printed["default"] == bundle.default == "int8"
    assert printed["compressed"] is None
    assert printed["bytes"].keys() == bundle.files.keys()
    assert set(bundle.files) == {
        "speaker.npy",
        *(f"{form}.{end}" for form in ("model", "body") for end in ("onnx", "int8.onnx")),
    }
    assert printed["quality"]["clips"] == 4  # the labelled test rows
    assert printed["quality"]["int8"]["ua"] is not None
    assert printed["timing"]["onnxruntime"]["int8_ms"] > 0
    assert printed["timing"]["integer"]["layers"] == 4
    assert bundle.calibration["clips"] == 8  # the adapt rows
    assert bundle.provenance["student"]["size"] == "xs"
    assert str(tmp_path) not in (out / "bundle.json").read_text()
    assert "exists: choose another folder" in refused(run(place / "student", "-o", out))


def test_what_is_said_of_speed() -> None:
    row = {"int8_ms": 0.5, "fp32_ms": 0.4, "ratio": 0.8}
    times = {"seconds": 3.0, "onnxruntime": row, "integer": {"body_share": 0.625}, "verdict": "int8 is slow"}
    first, second, third = speed(times, ["onnxruntime"], "fp32").splitlines()
    assert first.startswith("onnxruntime: int8 0.50 ms, fp32 0.40 ms for 3 s of audio: 0.80 times")
    assert "62 %" in second
    assert third == "int8 is slow; the bundle's default is fp32: --force-int8 makes int8 the default"
    assert speed(times, ["onnxruntime"], "int8").endswith("default is int8: as --force-int8 asks")
    assert len(speed(times | {"verdict": None}, ["onnxruntime"], "int8").splitlines()) == 2


def test_int8_takes_the_manifest_of_the_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    monkeypatch.setattr(
        "mifuse_export.export_bundle", lambda model, out, config, **options: seen.update(options)
    )
    student = tmp_path / "student"
    load_model(place / "student").save_pretrained(student)
    with pytest.raises(Exception, match="pass --calibration"):
        export_student(student, tmp_path / "out", ExportConfig(int8=True))
    (student / "run.json").write_text(json.dumps({"target": str(tmp_path / "gone.csv")}))
    with pytest.raises(Exception, match=r"gone\.csv, is gone"):
        export_student(student, tmp_path / "out", ExportConfig(int8=True))
    (student / "run.json").write_text(json.dumps({"target": str(place / "target.csv"), "seed": 7}))
    export_student(student, tmp_path / "out", ExportConfig(int8=True), cache=AudioCache(tmp_path / "cache"))
    assert len(seen["calibration"]) == 8
    assert len(seen["probe"].clips) == 4
    assert seen["provenance"]["seed"] == 7


def test_a_budget_out_of_reach_and_one_for_the_narrowest(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mifuse.exporting.compress.DISTIL", replace(DISTIL, steps=2, batch_size=4))
    torch.manual_seed(0)
    student = Student(size="w2").train()
    student(0.1 * torch.randn(4, 8_000))  # norms that have seen nothing fold to less
    student.save_pretrained(tmp_path / "student")
    monkeypatch.chdir(tmp_path)
    common = ["student", "-o", "small", "--calibration", place / "target.csv", "--max-drop", 90, "--json"]
    result = run(*common, "--budget-kb", 5)
    assert result.exit_code == 1
    error = result.stderr.splitlines()[-1]
    found = re.search(r"no student holds the budget of 5 kB: the narrowest costs ([0-9.]+) kB and", error)
    assert found, error
    assert [p.name for p in tmp_path.iterdir()] == ["student"]
    kb = float(found[1]) + 1
    result = run(*common, "--budget-kb", kb)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["bytes"]["model.int8.onnx"] / 1000 <= kb
    assert printed["default"] == "int8"
    made = printed["compressed"]
    assert (made["from size"], made["to size"], made["clips"]) == ("w2", "w1", 4)
    assert 0 <= made["agreement"] <= 100 and 0 <= made["ua"] <= 100
    assert bundles.load(tmp_path / "small").provenance["student"]["size"] == "w1"
    assert "| compressed from size | w2 |" in (tmp_path / "small" / "README.md").read_text()
    assert compression(made).startswith("size w2 made w1 for the budget: agreement ")


@pytest.mark.parametrize("option", ["--budget-kb", "--budget-ms"])
@pytest.mark.parametrize(("bound", "code"), [("0", 2), ("-3", 2), ("few", 2), ("nan", 1)])
def test_budgets_that_are_none(place: Path, tmp_path: Path, option: str, bound: str, code: int) -> None:
    assert (
        option[9:].lower()
        in refused(run(place / "student", "-o", tmp_path / "x", option, bound), code).lower()
    )
    assert not list(tmp_path.iterdir())


def test_clips_are_spread_over_durations_and_labels_of_adapt_rows_stay_unread(place: Path) -> None:
    manifest = read_manifest(place / "target.csv")
    lengths = [soundfile.info(clip.path).frames for clip in calibration_clips(manifest, 4)]
    assert lengths == sorted(lengths)
    assert lengths[0] == min(soundfile.info(c.path).frames for c in manifest.clips if c.split == "adapt")
    assert {clip.split for clip in calibration_clips(manifest)} == {"adapt"}
    assert {clip.split for clip in probe_clips(manifest, Naming(LABELS))} == {"test"}
    assert probe_clips(manifest, Naming(("bored",))) == []


def test_int8_is_judged_on_clips_as_on_the_device(tmp_path: Path) -> None:
    speech = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE).astype(np.float32)
    silence = np.zeros(SAMPLE_RATE, np.float32)
    soundfile.write(tmp_path / "clip.wav", np.concatenate([silence, speech, silence]), SAMPLE_RATE)
    (tmp_path / "target.csv").write_text(f"path,label,split\nclip.wav,{LABELS[0]},test\n")
    (clip,) = judges(tmp_path / "target.csv", Naming(LABELS), cache=AudioCache(tmp_path / "cache")).clips
    assert clip.size < 1.1 * SAMPLE_RATE


@pytest.mark.parametrize("count", [1, 7, 40, 60, 100])
def test_calibration_clips_are_of_every_predicted_class(count: int) -> None:
    rng = np.random.default_rng(0)
    clips = [np.zeros(n, np.float32) for n in rng.permutation(np.arange(1, 61))]
    classes = np.repeat([0, 1, 2], [48, 2, 10])
    taken = stratified(clips, classes, count)
    lengths = [len(clip) for clip in taken]
    assert len(set(lengths)) == len(lengths) == min(count, 60)
    assert lengths == sorted(lengths)
    of = {len(clip): c for clip, c in zip(clips, classes, strict=True)}
    found = np.bincount([of[length] for length in lengths], minlength=3)
    if count == 40:
        assert found.tolist() == [28, 2, 10]
        first = sorted(length for length, c in of.items() if c == 0)
        assert {first[0], first[-1]} <= set(lengths)
    if count == 7:
        assert sorted(found.tolist()) == [2, 2, 3]


def test_bad_use_and_bad_input(place: Path, tmp_path: Path) -> None:
    student, out = place / "student", tmp_path / "out"
    assert "pass --calibration" in refused(run(student, "-o", out, "--int8"))
    assert "no config.json there; give the folder" in refused(run(tmp_path, "-o", out))
    assert "no such manifest" in refused(run(student, "-o", out, "--calibration", tmp_path / "no.csv"))
    (tmp_path / "empty.csv").write_text("path\n")
    assert "no rows" in refused(run(student, "-o", out, "--calibration", tmp_path / "empty.csv"))
    assert "Missing option" in refused(run(student), code=2)
    assert "tflite" in refused(run(student, "-o", out, "--format", "tflite"), code=2)
    assert [p.name for p in tmp_path.iterdir()] == ["empty.csv"]


def test_an_unwritable_folder_is_one_line(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file" in refused(run(place / "student", "-o", tmp_path / "file" / "out"))


def test_broken_students(place: Path, tmp_path: Path) -> None:
    config = place / "student" / "config.json"
    (tmp_path / "config.json").write_text(config.read_text())
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 64)
    assert "not a student of ours" in refused(run(tmp_path, "-o", tmp_path / "out"))
    (tmp_path / "config.json").write_text("{")
    assert "not a student of ours" in refused(run(tmp_path, "-o", tmp_path / "out"))
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    assert "cannot be loaded as an audio classifier" in refused(run(tmp_path, "-o", tmp_path / "out"))
