"""`mifuse adapt --labelled`: a few true labels."""

import json
import shutil

import pytest

from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest, write_manifest
from mifuse.demo.synth import make_domain
from mifuse.runs.predictions import read_predictions
from tests.test_adapt import World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def labelled(world, tmp_path, rows, label="sad"):
    """A manifest of some of the clips, beside links to them."""
    (tmp_path / "clips").symlink_to(world.manifest.parent / "clips")
    file = tmp_path / "few.csv"
    lines = [f"{clip.name},{label}" for clip in rows]
    file.write_text("\n".join(["path,label", *lines]) + "\n")
    return file


def test_a_few_labels_are_taught_as_they_are(world, tmp_path):
    rows = world.clips[:3]
    file = add_copy(labelled(world, tmp_path, rows), rows[0], "sad")  # the same said twice is no harm
    result = world.run(tmp_path / "s", labelled=file)
    assert result.exit_code == 0, result.output
    assert world.run(tmp_path / "without").exit_code == 0
    fused, before = (
        read_predictions(tmp_path / out / "predictions.csv", LABELS).probs["fused"]
        for out in ("s", "without")
    )
    assert (fused[:3, LABELS.index("sad")] > 0.99).all()
    assert not (before[:3, LABELS.index("sad")] > 0.99).all()
    assert json.loads((tmp_path / "s" / "run.json").read_text())["labelled"] == 3


@pytest.mark.parametrize(
    ("rows", "label", "message"),
    [
        (slice(0, 1), "", "has no label"),
        (slice(0, 1), "bored", "unknown label 'bored'"),
        (slice(12, 14), "sad", "2 of its 2 clips are not among those to adapt to"),  # the test split
    ],
)
def test_labels_that_cannot_be_used(world, tmp_path, rows, label, message):
    clips = [*world.clips, *read_manifest(world.manifest).select("test").clips][rows]
    result = world.run(tmp_path / "s", labelled=labelled(world, tmp_path, clips, label))
    assert result.exit_code == 1
    assert message in result.output.strip().splitlines()[-1]
    assert not (tmp_path / "s").exists()


def add_copy(file, clip, label):
    """One more row of `file`: the same recording under another name."""
    shutil.copy(clip.path, file.parent / "copy.wav")
    with file.open("a") as few:
        few.write(f"copy.wav,{label}\n")
    return file


def test_a_clip_with_two_labels(world, tmp_path):
    file = add_copy(labelled(world, tmp_path, world.clips[:1]), world.clips[0], "happy")
    result = world.run(tmp_path / "s", labelled=file)
    assert result.exit_code == 1
    expected = f"{file}: copy.wav has another label than the same recording above: leave out one of the two"
    assert expected in result.output.splitlines()[-1]
    assert not (tmp_path / "s").exists()


def test_a_lalm_that_names_no_emotion_where_it_is_expected(world, tmp_path):
    """It answers the same of 64 clips; with a label that may be used, nothing is said."""
    target = make_domain(tmp_path / "phone", "phone", speakers=8, clips_per_speaker=8, seed=1, seconds=0.5)
    clips = read_manifest(target).clips
    probs = {"angry": 0.2, "happy": 0.2, "neutral": 0.4, "sad": 0.2}
    draws = [{"path": clip.name, "teacher": "t", "draw": k, "probs": probs} for clip in clips for k in (0, 1)]
    (tmp_path / "draws.jsonl").write_text("\n".join(map(json.dumps, draws)))
    files = {"target": target, "draws": tmp_path / "draws.jsonl"}
    run = world.run(tmp_path / "out", **files)
    assert run.exit_code == 0, run.output
    assert "the LALM names angry or happy or neutral or sad hardly more often" in run.stderr
    assert f"mifuse choose {target} -o few.csv" in run.stderr
    as_json = world.run(tmp_path / "json", "--json", **files)
    assert json.loads(as_json.stdout)["doubted"] == ["angry", "happy", "neutral", "sad"]
    write_manifest(tmp_path / "phone" / "few.csv", clips[:1])
    labelled = world.run(tmp_path / "few", "--labelled", str(tmp_path / "phone" / "few.csv"), **files)
    assert labelled.exit_code == 0, labelled.output
    assert "hardly more often" not in labelled.stderr
