"""Databases in audformat, written by audformat itself, to manifests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.clips import databases
from mifuse.clips.manifest import read_manifest

audformat = pytest.importorskip("audformat")
pd = pytest.importorskip("pandas")


def prepare(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["prepare", str(folder), "-o", str(folder / "manifest.csv"), *more])


def save(
    folder: Path, *, segmented: bool = False, storage: str = "csv", labels: tuple[str, ...] = ()
) -> Path:
    """Two sets of two files each and a file of raters' votes, as published databases have them."""
    names = [f"wav/{number:02}.wav" for number in range(4)]
    for name in (*names, "wav/unlisted.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    db = audformat.Database("sounds", languages=["german"])
    emotions = labels or ("anger", "happiness", "boredom", "neutral")
    db.schemes["emotion"] = audformat.Scheme(labels=list(emotions))
    db.schemes["confidence"] = audformat.Scheme("float", minimum=0, maximum=1)
    db.schemes["speaker"] = audformat.Scheme(labels={"a": {"gender": "female"}, "b": {"gender": "male"}})
    files = db["files"] = audformat.Table(audformat.filewise_index(names))
    files["speaker"] = audformat.Column(scheme_id="speaker")
    files["speaker"].set(["a", "a", "b", "b"])
    votes = db["emotion.votes"] = audformat.Table(audformat.filewise_index(names))
    votes["emotion"] = audformat.Column(scheme_id="emotion")
    votes["emotion"].set([emotions[3]] * 4)  # not what they agreed on
    for place, kind in enumerate(("train", "test")):
        db.splits[kind] = audformat.Split(type=kind)
        part = names[2 * place : 2 * place + 2]
        index = audformat.filewise_index(part)
        if segmented:
            index = audformat.segmented_index([part[0], *part], ["0s", "1.5s", "0s"], ["1.5s", "2s", pd.NaT])
        gold = db[f"emotion.{kind}.gold_standard"] = audformat.Table(index, split_id=kind)
        gold["emotion"] = audformat.Column(scheme_id="emotion")
        gold["emotion.confidence"] = audformat.Column(scheme_id="confidence")
        found = [emotions[2 * place], *([None] if segmented else []), emotions[2 * place + 1]]
        gold["emotion"].set(found)
    db.save(folder, storage_format=storage)
    return folder


@pytest.mark.parametrize("storage", ["csv", "parquet"])
def test_a_database_of_files(tmp_path: Path, storage: str) -> None:
    done = prepare(save(tmp_path, storage=storage), "--test-set", "test")
    assert done.exit_code == 0, done.output
    assert "3 clips (audformat), 2 speakers" in done.output
    assert "boredom 1" in done.output
    assert "not in the tables 1" in done.output
    rows = read_manifest(tmp_path / "manifest.csv").clips
    found = [(row.name, row.label, row.speaker, row.split, row.language) for row in rows]
    assert found == [
        ("wav/00.wav", "angry", "sounds-a", "adapt", "de"),
        ("wav/01.wav", "happy", "sounds-a", "adapt", "de"),
        ("wav/03.wav", "neutral", "sounds-b", "test", "de"),
    ]
    assert [row.extra["emotion"] for row in rows] == ["anger", "happiness", "neutral"]


def test_a_database_of_segments(tmp_path: Path) -> None:
    done = prepare(save(tmp_path, segmented=True), "--labels", "all")
    assert done.exit_code == 0, done.output
    assert "no emotion in the tables 2" in done.output
    rows = read_manifest(tmp_path / "manifest.csv").clips
    assert [(row.name, row.start, row.end, row.label) for row in rows] == [
        ("wav/00.wav", None, 1.5, "angry"),
        ("wav/01.wav", None, None, "happy"),
        ("wav/02.wav", None, 1.5, "bored"),
        ("wav/03.wav", None, None, "neutral"),
    ]


def test_words_of_ones_own(tmp_path: Path) -> None:
    folder = save(tmp_path, labels=("e1", "e2", "e3", "e4"))
    refused = prepare(folder)
    assert refused.exit_code == 1
    assert (
        "no table of db.yaml has a column of emotions; it has emotion.test.gold_standard (" in refused.output
    )
    done = prepare(folder, "--map", "e1=angry,e2=happy,e3=sad,e4=")
    assert done.exit_code == 0, done.output
    labels = [row.label for row in read_manifest(tmp_path / "manifest.csv").clips]
    assert labels == ["angry", "happy", "sad"]


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "db.files.pkl").write_bytes(b"")
    assert "db.files.pkl is a pickle" in prepare(tmp_path).output
    (tmp_path / "db.files.pkl").unlink()
    header = tmp_path / "db.yaml"
    header.write_text(header.read_text() + f"x: !!python/object/apply:os.mkdir ['{tmp_path}/ran']\n")
    refused = prepare(tmp_path)
    assert refused.exit_code == 1
    assert "db.yaml or its tables cannot be read" in refused.output
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "manifest.csv").exists()


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "db.files.csv").unlink()
    refused = prepare(tmp_path)
    assert (refused.exit_code, len(refused.output.splitlines())) == (1, 1)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "wav" / "00.wav").unlink()
    assert "in the tables, but not there 1" in prepare(tmp_path).output


def test_without_audformat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not databases.is_readable(tmp_path)
    assert "pip install audformat" in caplog.text
