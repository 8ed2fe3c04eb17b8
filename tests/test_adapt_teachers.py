"""`mifuse adapt` with several LALMs, none but LALMs, class shares and a random check set."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from mifuse.adaptation import adapt
from mifuse.cli import main
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest, write_manifest
from mifuse.demo.stand_in import stand_in_lalm
from mifuse.demo.synth import make_domain
from mifuse.errors import TrainingError
from mifuse.models.classifier import load_model
from tests.test_adapt import CONFIG, World

pytestmark = pytest.mark.learning


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def run(world, out, *more):
    return world.run(out, *more)


def record(out):
    return json.loads((out / "run.json").read_text())


def test_draws_of_several_lalms(world, tmp_path):
    second = tmp_path / "second.jsonl"
    stand_in_lalm(read_manifest(world.manifest), second, draws=2, seed=9)
    result = run(world, tmp_path / "s", "--draws", second)
    assert result.exit_code == 0, result.output
    assert record(tmp_path / "s")["draws"] == [str(world.draws), str(second)]


def test_lalms_of_other_clips_are_refused(world):
    with pytest.raises(TrainingError, match="do not fit 12 clips and 4 labels"):
        adapt(world.clips, [world.lalm, world.lalm[:, 1:]], world.classifier, world.cache, config=CONFIG)
    with pytest.raises(TrainingError, match="no draws"):
        adapt(world.clips, [], world.classifier, world.cache, config=CONFIG)


def test_teachers_without_a_file_each(world, tmp_path):
    result = run(world, tmp_path / "s", "--draws", world.draws, "--teacher", "a")
    assert result.exit_code == 1
    assert "1 teachers for 2 files of draws: name one for each file" in result.stderr


def test_a_lalm_alone(world, tmp_path):
    out = tmp_path / "s"
    options = ["--size", "xs", "--set", "fit.steps=4", "--set", "fit.batch_size=8", "--json"]
    options += ["--set", "refine.folds=2"]
    command = ["adapt", "--target", world.manifest, "--draws", world.draws, "-o", out, *options]
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)["verdict"]
    assert set(verdict["archive"]) == {"LALM", "student"}
    assert verdict["deploy"] is False and "nothing says how good the LALM is" in verdict["advice"]
    assert record(out)["source"] is None


def test_shares_move_the_student(world, tmp_path):
    plain, moved = tmp_path / "plain", tmp_path / "moved"
    assert run(world, plain).exit_code == 0
    result = run(world, moved, "--shares", "sad=.85")
    assert result.exit_code == 0, result.output
    shares = record(moved)["shares"]
    assert shares["sad"] == pytest.approx(0.85) and shares["angry"] == pytest.approx(0.05)
    sad = [record(out)["fusion"]["student_prior"][LABELS.index("sad")] for out in (plain, moved)]
    assert sad[1] > sad[0] + 0.2
    bias = [load_model(out).head.bias.detach().numpy() for out in (plain, moved)]
    assert (bias[1] - bias[0]).argmax() == LABELS.index("sad")


def test_bad_shares_leave_nothing(world, tmp_path):
    result = run(world, tmp_path / "s", "--shares", "calm=.5")
    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert "shares name 'calm'" in result.stderr


def drawn(world, tmp_path, count=6, label="sad"):
    """A check set with one label for all."""
    file = tmp_path / "check.csv"
    (tmp_path / "clips").symlink_to(world.manifest.parent / "clips")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(world.manifest.read_text())
    command = ["choose", str(manifest), "--random", str(count), "-o", str(file)]
    assert CliRunner().invoke(main, command).exit_code == 0
    rows = read_manifest(file).clips
    write_manifest(file, [replace(clip, label=label) for clip in rows])
    return file


def test_a_check_set_measures_and_is_not_learnt_from(world, tmp_path):
    check = drawn(world, tmp_path)
    assert len(read_manifest(check)) == 6
    result = run(world, tmp_path / "s", "--check", check, "--shares", "sad=.97")
    assert result.exit_code == 0, result.output
    found = record(tmp_path / "s")
    assert found["verdict"]["checked"] == 6 and found["labelled"] == 0
    assert "Expected, corrected by 6 checked clips" in result.stdout


def test_shares_follow_from_a_check_set(world, tmp_path):
    assert run(world, tmp_path / "s", "--check", drawn(world, tmp_path)).exit_code == 0
    assert np.argmax(list(record(tmp_path / "s")["shares"].values())) == LABELS.index("sad")


def test_shares_that_contradict_the_check_set(world, tmp_path):
    result = run(world, tmp_path / "s", "--check", drawn(world, tmp_path), "--shares", "sad=.05")
    assert result.exit_code == 1
    assert "--shares says 5% sad, the check set 6 of 6 (100%)" in result.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("fault", ["chosen by hand", "another archive", "not filled in", "a row removed"])
def test_check_sets_that_cannot_be_used(world, tmp_path, fault):
    check = drawn(world, tmp_path)
    rows = list(read_manifest(check).clips)
    files = {}
    if fault == "chosen by hand":
        rows = [replace(clip, extra={}) for clip in rows]
    elif fault == "another archive":
        target = make_domain(
            tmp_path / "other", "phone", speakers=3, clips_per_speaker=4, seed=5, seconds=0.5
        )
        stand_in_lalm(read_manifest(target), tmp_path / "other.jsonl", draws=2)
        files = {"target": target, "draws": tmp_path / "other.jsonl"}
    elif fault == "not filled in":
        rows[2] = replace(rows[2], label=None)
    else:
        del rows[1]
    write_manifest(check, rows)
    result = world.run(tmp_path / "s", "--check", check, **files)
    assert result.exit_code == 1
    said = {
        "chosen by hand": "was not drawn by `mifuse choose --random`",
        "another archive": "not from these",
        "not filled in": "1 of the 6 clips that were drawn have no label",
        "a row removed": "1 of the 6 clips that were drawn have no label",
    }
    assert said[fault] in result.stderr
    assert not (tmp_path / "s").exists()
