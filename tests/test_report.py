"""The report: one well-formed page, whatever the run holds and whatever its texts are."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.clips.manifest import Clip
from mifuse.errors import MifuseError
from mifuse.runs import pictures
from mifuse.runs.closely import LEAST, players, speakers
from mifuse.runs.predictions import Predictions, read_predictions, write_predictions
from mifuse.runs.report import read_run, read_truth, render, separation, write_report

LABELS = ("angry", "happy", "neutral", "sad")
NASTY = "<script>alert('x')</script> & $x_1$"


def make_run(folder: Path, labels: tuple[str, ...] = LABELS, clips: int = 48, **content: object) -> Path:
    """A run as `mifuse adapt` writes it, with made-up numbers."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["path,label,speaker,split"]
    for i in range(clips):
        (folder / f"{i}.wav").touch()
        rows.append(f'{i}.wav,"{labels[i % 4]}",s{i % 6},{"test" if i % 6 > 3 else "adapt"}')
    (folder / "target.csv").write_text("\n".join(rows))
    probs = {who: rng.dirichlet(np.ones(4), clips) for who in ("LALM", "classifier", "fused", "student")}
    weight = rng.random(clips)
    weight[np.arange(clips) % 6 > 3] = np.nan
    keys = tuple((f"{i}.wav", None, None, None) for i in range(clips))
    write_predictions(folder / "predictions.csv", Predictions(labels, keys, probs, {"lalm_weight": weight}))
    history = [{"epoch": i, "loss": 1.0 / i, "entropy": 1.2, "validation_ua": None} for i in (1, 2, 3)]
    run = {"kind": "adapt", "labels": labels, "history": history, "target": "target.csv"}
    run |= {
        "config": {"draws": 8, "fit": {"steps": 5}},
        "fusion": {"lalm_prior": [0.1, 0.2, 0.6, 0.1], "student_prior": [0.25] * 4},
    }
    (folder / "run.json").write_text(json.dumps(run | content))
    return folder


def texts(page: str) -> str:
    return " ".join(ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>")).itertext())


def test_full_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    page = write_report(folder).read_text()
    text = texts(page)
    for title in (
        "Scores",
        "Confusions",
        "Fusion weight",
        "Training",
        "Reliability",
        "Class prior",
        "Settings",
    ):
        assert title in text
    assert "fit.steps" in text
    assert page.count("<svg") == 6  # confusions of two splits, and four more
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "")
    sources = re.findall('src="([^"]*)"', page)
    assert "<img" not in page and len(sources) == LEAST
    assert all(re.fullmatch(r"\d+\.wav", source) for source in sources), "recordings stay where they are"
    assert [path.name for path in folder.glob("*.part")] == []


def test_it_opens_with_the_verdict_and_says_what_was_paid(tmp_path: Path) -> None:
    one = {"ua": 60.0, "ua_interval": [50, 70], "accuracy": 60.0, "accuracy_interval": [50, 70]}
    verdict = {"archive": {"student": one}, "new_voices": {"student": one}, "checked": 0, "advice": "Deploy."}
    cost = {"openai/m": {"usd": 1.234, "draws": 192, "unsettled_usd": 0.0}}
    page = write_report(make_run(tmp_path / "run", verdict=verdict, cost=cost)).read_text()
    assert re.findall("<h2>(.*?)</h2>", page)[0] == "Verdict"
    assert "openai/m" in texts(page) and "$1.23" in texts(page)
    assert "against correctness" in page
    manifest = tmp_path / "run" / "target.csv"
    manifest.write_text("path\n" + "\n".join(f"{i}.wav" for i in range(48)))
    assert "against correctness" not in write_report(tmp_path / "run").read_text(), (
        "nothing says what is right"
    )


def test_players_are_of_the_least_certain_and_lead_to_the_recordings(tmp_path: Path) -> None:
    clips = [
        Clip("a b#.wav", tmp_path / "calls" / "a b#.wav", start=1.5, end=2.0),
        None,
        Clip("c.wav", tmp_path / "c.wav"),
    ]
    student = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4]])
    probs = {"student": student, "LALM": np.full((3, 2), np.nan)}
    table = players(clips, probs, ("x", "y"), tmp_path / "out")
    assert re.findall('src="([^"]*)"', table) == ["../c.wav", "../calls/a%20b%23.wav#t=1.5,2"]
    assert players([None] * 3, {"student": student}, ("x", "y"), tmp_path) == ""


def test_speakers_who_are_served_worst_come_first() -> None:
    student = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    table = speakers(["a", "a", "b", "b"], student, ("x", "y"), np.array([0, 0, 1, -1]))
    assert re.findall("<td>(.*?)</td>", table) == [
        *("b", "2", "x (50 %)", "0.65", "0"),
        *("a", "2", "x (100 %)", "0.85", "100"),
    ]
    assert "right" not in speakers(["a", "b", None, None], student, ("x", "y"), None)
    assert speakers(["a", None, None, None], student, ("x", "y"), None) == ""


def test_same_run_same_page(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert render(run, read_truth(run)) == render(run, read_truth(run))


def test_run_without_labels_history_or_predictions(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"kind": "train", "labels": LABELS}))
    assert "no labels" in texts(write_report(folder).read_text())
    labelled = make_run(tmp_path / "adapt")
    manifest = labelled / "target.csv"
    manifest.write_text("path\n" + "\n".join(f"{i}.wav" for i in range(48)))
    text = texts(write_report(labelled).read_text())
    assert "no labels" in text and "Confusions" not in text and "Fusion weight" in text


def test_texts_from_outside_are_escaped(tmp_path: Path) -> None:
    labels = ("angry", "happy", "neutral", NASTY)
    row = {"who": NASTY, "UA": 1.0, "size": None}
    folder = make_run(
        tmp_path / "run", labels, config={NASTY: NASTY}, notes=[NASTY], versions={NASTY: NASTY}, rows=[row]
    )
    page = write_report(folder).read_text()
    assert "<script" not in page
    assert texts(page).count("<script>alert('x')</script>") >= 6


def test_a_stand_in_is_called_one(tmp_path: Path) -> None:
    text = texts(write_report(make_run(tmp_path / "run", lalm="stand-in LALM")).read_text())
    assert text.count("stand-in LALM") >= 4


def test_nan_in_the_record_does_not_stop_it(tmp_path: Path) -> None:
    history = [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": 1.0}]
    assert "Training" in texts(write_report(make_run(tmp_path / "run", history=history)).read_text())


@pytest.mark.parametrize("content", ["", "[]", '{"labels": ["a"]}', "nonsense"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(MifuseError, match="not the record of a run"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_command(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    out = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["report", str(folder), "-o", str(out)])
    assert result.exit_code == 0 and result.output.strip() == str(out) and out.exists()
    result = CliRunner().invoke(main, ["report", str(folder), "--target", str(folder / "target.csv")])
    assert result.exit_code == 0 and (folder / "report.html").exists()
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 1 and "no such run" in result.output
    assert CliRunner().invoke(main, ["report", str(tmp_path / "absent")]).exit_code == 2


def test_predictions_round_trip(tmp_path: Path) -> None:
    clips = [Clip("a, b.wav", tmp_path / "a"), Clip("é.wav", tmp_path / "b", start=0.1, end=2.0)]
    probs = np.array([[0.25, 0.75], [np.nan, np.nan]])
    written = Predictions(
        ("x", "y"), tuple(clip.key for clip in clips), {"LALM": probs}, {"lalm_mi": np.array([0.5, np.nan])}
    )
    write_predictions(tmp_path / "p.csv", written)
    found = read_predictions(tmp_path / "p.csv", ("x", "y"))
    assert found.keys == written.keys and found.labels == written.labels
    np.testing.assert_array_equal(found.probs["LALM"], probs)
    np.testing.assert_array_equal(found.measures["lalm_mi"], [0.5, np.nan])
    with pytest.raises(MifuseError, match="no predictions over x, z"):
        read_predictions(tmp_path / "p.csv", ("x", "z"))


def test_separation_without_one_of_the_two_is_nan() -> None:
    assert np.isnan(separation(np.array([0.1, 0.9]), np.array([True, True])))
    assert separation(np.full(4, 0.5), np.array([True, False, True, False])) == 0.5


def test_truth_follows_names_not_order(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    head, *rows = (folder / "target.csv").read_text().splitlines()
    run = read_run(folder)
    before = read_truth(run)
    (folder / "target.csv").write_text("\n".join([head, *rows[::-1]]))
    after = read_truth(replace(run))
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.labels, after.labels)


def test_pictures_are_xml_and_hold_no_date() -> None:
    svg = pictures.priors({"LALM": [0.5, 0.5], "other": [0.1, 0.9]}, ["a<b", "$c$"])
    assert "a<b" in "".join(ElementTree.fromstring(svg).itertext())
    assert "<dc:date>" not in svg and svg == pictures.priors(
        {"LALM": [0.5, 0.5], "other": [0.1, 0.9]}, ["a<b", "$c$"]
    )
