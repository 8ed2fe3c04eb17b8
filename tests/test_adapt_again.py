"""`mifuse adapt --from`: a student that is adapted once more."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.runs.predictions import read_predictions
from tests.test_adapt import SETTINGS, World
from tests.test_classifier import save_hub

pytestmark = pytest.mark.learning


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def again(world, out, *more, **changes):
    """Adapts the world's classifier once more; its size comes from the folder."""
    options = {"from": world.source, "target": world.manifest, "draws": world.draws} | changes
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return CliRunner().invoke(main, ["adapt", *given, "-o", str(out), *SETTINGS[2:], *map(str, more)])


def distance(folder, world):
    """How far the student's answers to the new clips are from the earlier student's."""
    probs = read_predictions(folder / "predictions.csv", world.classifier.labels).probs
    return np.abs(probs["student"] - probs["classifier"]).mean()


def test_the_earlier_students_answers_are_kept(world, tmp_path):
    distances = []
    # After a dozen steps weights of 1 and 50 keep as much; what is fused in between makes no difference here.
    steps = ["--set", "fit.steps=100", "--set", "fit.steps_per_epoch=25"]
    for name, more in (("new", ["--set", "keep=0"]), ("both", []), ("old", ["--set", "keep=50"])):
        result = again(world, tmp_path / name, *steps, *more)
        assert result.exit_code == 0, result.output
        distances.append(distance(tmp_path / name, world))
    assert (
        distances[2] < min(distances[:2]) / 2
    )  # a quarter at most, on three CPUs; weight 1 alone proves nothing
    run = json.loads((tmp_path / "both" / "run.json").read_text())
    assert (run["config"]["keep"], run["config"]["size"]) == (1.0, "xs")
    assert run["history"][-1]["remembered"] > 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--source", "x"], 2, "give a classifier as --source, or a student to adapt once more as --from"),
        (["--size", "m"], 2, "--size is of a new student"),
        (["--set", "keep=-1"], 1, "keep = -1.0: it must be at least 0"),
    ],
)
def test_bad_use(world, tmp_path, options, code, message):
    refused = again(world, tmp_path / "out", *options)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert message in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_a_student_is_adapted_once_more(world, tmp_path):
    hub = save_hub(tmp_path / "hub")
    refused = again(world, tmp_path / "out", **{"from": f"hf:{hub}"})
    assert refused.exit_code == 1
    assert "keep = 1 needs an earlier student" in refused.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"hub"}
