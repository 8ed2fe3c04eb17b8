"""`mifuse prepare`: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.clips.manifest import read_manifest


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


@pytest.fixture
def ravdess(tmp_path: Path) -> Path:
    folder = tmp_path / "ravdess"
    for actor in range(1, 5):
        for code in range(1, 9):
            path = folder / f"Actor_{actor:02}" / f"03-01-{code:02}-01-01-01-{actor:02}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return folder


def test_writes_and_prints(ravdess: Path) -> None:
    output = ravdess / "manifest.csv"
    result = run(ravdess, "-o", output, "--map", "calm=neutral", "--split-test", "0.25")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[:7] == [
        f"{output}: 20 clips (ravdess), 4 speakers",
        "  angry         4  from angry",
        "  happy         4  from happy",
        "  neutral       8  from neutral, calm",
        "  sad           4  from sad",
        "splits: adapt 15, test 5",
        "left out: fear 4, disgust 4, surprise 4 (take with --labels or --map OLD=NEW)",
    ]
    assert result.output.splitlines()[7:9] == [
        "speaker       angry    happy  neutral      sad",
        "ravdess-01        1        1        2        1",
    ]
    manifest = read_manifest(output)
    assert len(manifest) == 20
    assert manifest.clips[0].name == "Actor_01/03-01-01-01-01-01-01.wav"
    assert len(manifest.select("test")) == 5


def test_sets_of_a_corpus_become_splits(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for code, name in enumerate(("Angry", "Sad")):
            path = tmp_path / "esd" / "0011" / name / part / f"0011_00000{code}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    result = run(tmp_path / "esd", "-o", tmp_path / "esd" / "m.csv", "--test-set", "test,evaluation")
    assert result.exit_code == 0 and "splits: adapt 2, test 2" in result.output
    splits = {(clip.extra["set"], clip.split) for clip in read_manifest(tmp_path / "esd" / "m.csv").clips}
    assert splits == {("train", "adapt"), ("test", "test")}
    refused = run(tmp_path / "esd", "-o", tmp_path / "esd" / "x.csv", "--test-set", "Test1")
    assert refused.exit_code == 1 and "no set of Test1: there are test, train" in refused.output
    both = run(tmp_path, "-o", tmp_path / "x.csv", "--test-set", "test", "--split-test", "0.5")
    assert both.exit_code == 2 and "exclude each other" in both.output


def test_json(ravdess: Path) -> None:
    output = ravdess.parent / "m.csv"
    result = run(ravdess, "-o", output, "--test-speakers", "ravdess-02, ravdess-03", "--json")
    assert json.loads(result.output) == {
        "manifest": str(output),
        "corpus": "ravdess",
        "clips": 16,
        "namings": {"ravdess": 16},
        "labels": {"angry": 4, "happy": 4, "neutral": 4, "sad": 4},
        "splits": {"adapt": 8, "test": 8},
        "speakers": {f"ravdess-0{n}": {"neutral": 1, "happy": 1, "sad": 1, "angry": 1} for n in range(1, 5)},
        "mapping": {
            "neutral": "neutral",
            "calm": None,
            "happy": "happy",
            "sad": "sad",
            "angry": "angry",
            "fear": None,
            "disgust": None,
            "surprise": None,
        },
        "left_out": {"calm": 4, "fear": 4, "disgust": 4, "surprise": 4},
    }
    assert read_manifest(output).clips[0].name.startswith("ravdess/Actor_01/")


def test_flat_folder(tmp_path: Path) -> None:
    (tmp_path / "call 1.wav").write_bytes(b"")
    result = run(tmp_path, "-o", tmp_path / "m.csv")
    assert "1 clips (flat), 0 speakers\nunlabelled: no folder or file name says an emotion" in result.output
    assert read_manifest(tmp_path / "m.csv").clips[0].label is None


def test_relative_paths_and_links(ravdess: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to recordings on another disk counts as lying where the link is."""
    here = ravdess.parent / "here"
    here.mkdir()
    (here / "clips").symlink_to(ravdess)
    monkeypatch.chdir(here)
    assert run("clips", "-o", "m.csv").exit_code == 0
    assert read_manifest("m.csv").clips[0].name.startswith("clips/Actor_01/")


def test_keeps_what_exists(ravdess: Path) -> None:
    output = ravdess / "manifest.csv"
    output.write_text("mine")
    result = run(ravdess, "-o", output)
    assert result.exit_code == 1
    assert "exists: choose another name, or add --force to replace it" in result.output
    assert output.read_text() == "mine"
    assert run(ravdess, "-o", output, "--force").exit_code == 0
    assert len(read_manifest(output)) == 16


def test_refuses_a_manifest_beside_the_clips(ravdess: Path) -> None:
    result = run(ravdess, "-o", ravdess.parent / "elsewhere" / "m.csv")
    assert result.exit_code == 1
    assert "is outside its folder: write the manifest at or above the clips" in result.output
    assert not (ravdess.parent / "elsewhere").exists()


def test_unwritable_output(ravdess: Path) -> None:
    (ravdess.parent / "file").write_bytes(b"")
    result = run(ravdess, "-o", ravdess.parent / "file" / "m.csv")
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--map", "calm"], 2, "'calm': write OLD=NEW, as in calm=neutral"),
        (["--map", "joyous=happy"], 1, "ravdess has no such emotion (it has: neutral, calm"),
        (["--corpus", "imaginary"], 2, "'imaginary' is not one of"),
        (["--corpus", "emodb"], 1, "no clip has one of the labels"),
        (["--split-test", "1.5"], 2, "not in the range"),
        (["--split-test", "0.5", "--test-speakers", "a"], 2, "exclude each other"),
        (["--test-speakers", "a"], 1, "no speaker 'a': use some of ravdess-01"),
    ],
)
def test_refuses(ravdess: Path, arguments: list[str], code: int, message: str) -> None:
    output = ravdess / "manifest.csv"
    result = run(ravdess, "-o", output, *arguments)
    assert result.exit_code == code
    assert message in result.output
    assert "Traceback" not in result.output
    assert not output.exists()


def test_help_has_an_example() -> None:
    result = run("-h")
    assert "Example: mifuse prepare ravdess/ -o ravdess/manifest.csv" in result.output
