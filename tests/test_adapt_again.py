"""`mifuse adapt --from`: a student that is adapted once more."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from mifuse.adapt import between
from mifuse.cli import main
from mifuse.predictions import read_predictions
from mifuse.student import Student
from tests.test_adapt import SETTINGS, World
from tests.test_classifier import save_hub


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def again(world, out, *more, **changes):
    """Adapts the world's classifier once more; its size comes from the folder."""
    options = {"from": world.source, "target": world.manifest, "draws": world.draws} | changes
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return CliRunner().invoke(main, ["adapt", *given, "-o", str(out), *SETTINGS[2:], *map(str, more)])


def test_between():
    one, other = Student(size="xs"), Student(size="xs")
    middle = between(one, other, 0.25).state_dict()
    for name, weights in one.state_dict().items():
        if weights.dtype.is_floating_point:
            torch.testing.assert_close(middle[name], 0.75 * weights + 0.25 * other.state_dict()[name])
    assert not torch.equal(middle["head.weight"], one.head.weight)  # a copy


def test_half_of_the_weights_are_kept(world, tmp_path):
    result = again(world, tmp_path / "half")
    assert result.exit_code == 0, result.output
    assert again(world, tmp_path / "new", "--set", "keep=0", "--set", "size=xs").exit_code == 0
    half, new, old = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "half", tmp_path / "new", world.source)
    )
    for name, weights in half.items():
        if weights.dtype.is_floating_point:
            torch.testing.assert_close(weights, (new[name] + old[name]) / 2)
    run = json.loads((tmp_path / "half" / "run.json").read_text())
    assert (run["config"]["keep"], run["config"]["size"]) == (0.5, "xs")


def test_what_is_written_is_what_the_mixture_says(world, tmp_path):
    assert again(world, tmp_path / "out", "--set", "keep=1").exit_code == 0
    predictions = read_predictions(tmp_path / "out" / "predictions.csv", world.classifier.labels)
    # All of the earlier weights, and so the earlier student; its draws have dropout.
    assert np.abs(predictions.probs["student"] - predictions.probs["classifier"]).mean() < 0.05
    kept = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(kept["head.weight"], world.classifier.head.weight)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--source", "x"], 2, "give a classifier as --source, or a student to adapt once more as --from"),
        (["--size", "m"], 2, "--size is of a new student"),
        (["--set", "keep=1.5"], 1, "keep = 1.5: it must be 0 to 1"),
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
    assert "keep = 0.5 needs an earlier student" in refused.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"hub"}
