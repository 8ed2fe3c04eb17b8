"""The demo at a size that takes seconds: every stage is real, the table and the report are there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.demo.demo import KNOWN, QUICK, DemoConfig, Row, given_inputs, make_inputs, run_demo, table_row
from mifuse.demo.ready import light, write_call
from mifuse.errors import MifuseError
from mifuse.runs.report import read_run
from mifuse_runtime import Recognizer, read_audio

TINY = DemoConfig(
    source_speakers=3,
    target_speakers=4,
    test_speakers=1,
    clips_per_speaker=8,
    seconds=0.8,
    draws=3,
    size="xs",
    train_steps=20,
    adapt_steps=20,
    calls=2,
)
TINIER = replace(TINY, target_speakers=3, clips_per_speaker=4, train_steps=4, adapt_steps=4)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path, list]:
    """What `mifuse demo` said and made in the folder of an earlier demo, and its rows."""
    out, made = tmp_path_factory.mktemp("run") / "demo", []

    def noted(*arguments: object, **options: object) -> tuple[list, Path]:
        made.append(run_demo(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    for folder in ("data", "source", "student", "student.partial"):
        (out / folder).mkdir(parents=True)
        (out / folder / "state.safetensors").touch()  # as if killed while adapting
    (out / "run.json").write_text('{"kind": "demo", "labels": []}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mifuse.demo.demo.QUICK", TINY)
        patch.setattr("mifuse.demo.demo.run_demo", noted)
        result = CliRunner().invoke(main, ["demo", "-o", str(out), "--quick"])
    assert result.exit_code == 0, result.output
    return result, out, made[0][0]


@pytest.fixture(scope="module")
def done(command: tuple[Result, Path, list]) -> tuple[Path, list, Path]:
    _, out, rows = command
    return out, rows, out / "report.html"


def test_table_has_everyone(done: tuple[Path, list, Path]) -> None:
    _, rows, _ = done
    assert [row.name for row in rows] == ["classifier", "LALM", "average", "student", "student int8", KNOWN]
    assert all(0 <= ua <= 100 for row in rows for ua in (row.ua_adapt, row.ua_test))
    by_name = {row.name: row for row in rows}
    assert by_name["student int8"].size_kb < by_name["student"].size_kb
    for name in ("student", "student int8"):
        assert 0 < by_name[name].p50_ms <= by_name[name].p90_ms
    assert by_name["LALM"].p50_ms is None and by_name["LALM"].size_kb is None


def test_everything_is_where_the_commands_would_put_it(done: tuple[Path, list, Path]) -> None:
    out, _, report = done
    assert Recognizer.load(out / "bundle").labels == ("angry", "happy", "neutral", "sad")
    for command in (
        ["evaluate", str(out / "student"), str(out / "data/phone/manifest.csv"), "--json"],
        ["report", str(out / "student")],
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    page = report.read_text()
    assert report == out / "report.html"
    for words in ("stand-in LALM", "synthetic", "Fusion weight", "student int8", "Reliability", "Training"):
        assert words in page
    assert not list(out.rglob("*.part"))


def test_fusion_weights_are_noted_for_adapt_clips_only(done: tuple[Path, list, Path]) -> None:
    out, _, _ = done
    predictions = read_run(out).predictions
    assert predictions is not None
    splits = [clip.split for clip in read_manifest(out / "data/phone/manifest.csv").clips]
    noted = predictions.measures["lalm_weight"]
    assert [value == value for value in noted] == [split == "adapt" for split in splits]


def test_real_manifests_without_labels(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "data", TINIER, AudioCache())
    rows = [line.split(",") for line in inputs.target.read_text().splitlines()]
    inputs.target.write_text("\n".join(",".join([row[0], *row[2:]]) for row in rows))
    table, report = run_demo(tmp_path / "demo", replace(inputs, lalm="LALM", notes=()), TINIER)
    assert all(row.ua_adapt is None and row.ua_test is None for row in table)
    page = report.read_text()
    assert "stand-in" not in page and "synthetic" not in page
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"lalm_draws.jsonl", "phone", "studio"}


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(MifuseError, match="no demo made it: choose another folder with -o"):
        run_demo(tmp_path, config=TINY)
    with pytest.raises(MifuseError, match="no demo made it"):
        run_demo(tmp_path / "thesis.txt", config=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_command_writes_an_earlier_demo_anew(command: tuple[Result, Path, list]) -> None:
    result, out, _ = command
    assert "stand-in LALM" in result.stdout and f"Report: {out / 'report.html'}" in result.stdout
    assert "adapt" in result.stderr
    assert not list(out.rglob("state.safetensors")) and not (out / "student.partial").exists()


@pytest.mark.parametrize(("teacher", "name"), [("stand-in-lalm-1", "stand-in LALM"), ("voxtral", "LALM")])
def test_a_stand_in_is_called_one(tmp_path: Path, teacher: str, name: str) -> None:
    probs = dict.fromkeys(("angry", "happy", "neutral", "sad"), 0.25)
    line = {"path": "a.wav", "teacher": teacher, "draw": 0, "probs": probs}
    (tmp_path / "draws.jsonl").write_text(json.dumps(line))
    assert given_inputs(tmp_path, tmp_path, tmp_path / "draws.jsonl").lalm == name


def test_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = ([Row("LALM", 50.0, None)], tmp_path / "report.html")
    monkeypatch.setattr("mifuse.demo.demo.run_demo", lambda *_: made)
    document = json.loads(CliRunner().invoke(main, ["demo", "--json"]).stdout)
    assert document["synthetic"] and document["lalm"] == "stand-in LALM"
    assert document["rows"][0]["ua_adapt"] == 50.0 and document["rows"][0]["ua_test"] is None


def test_manifests_come_with_draws() -> None:
    result = CliRunner().invoke(main, ["demo", "--source", "a.csv"])
    assert result.exit_code == 2 and "all of --source, --target and --draws" in result.output


def test_its_bundle_says_that_it_is_a_demo_and_can_be_made_light(
    done: tuple[Path, list, Path], tmp_path: Path
) -> None:
    made = light(done[0] / "bundle", tmp_path / "light")
    assert {file.name for file in made.iterdir()} == {
        *("bundle.json", "README.md", "model.int8.onnx", "body.int8.onnx", "speaker.npy"),
    }
    whole, small = Recognizer.load(done[0] / "bundle"), Recognizer.load(made)
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert small.predict(samples, gate=False) == whole.predict(samples, gate=False)
    assert whole.predict(samples).demo
    assert "synthetic speech alone" in (done[0] / "bundle" / "README.md").read_text(encoding="utf-8")


def test_the_call_of_the_ready_bundle_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write_call(tmp_path / name)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert read_audio(tmp_path / "a.wav", 16_000).size == round(15.2 * 16_000)


def test_quick_is_smaller() -> None:
    full = DemoConfig()
    assert QUICK.train_steps < full.train_steps and QUICK.clips_per_speaker < full.clips_per_speaker


def test_rows_of_the_table_have_the_same_columns(done: tuple[Path, list, Path]) -> None:
    _, rows, _ = done
    assert len({tuple(table_row(row, "LALM")) for row in rows}) == 1
