"""Adaptation under `accelerate launch`."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mifuse.clips.labels import LABELS
from mifuse.runs.predictions import read_predictions
from tests.test_adapt import ROOT, World, environment

pytestmark = pytest.mark.learning

COUNTED = """
import sys

import mifuse.fusion.teaching
from mifuse.voices import prosody
from mifuse.cli import main


def counted(function, text):
    def call(*arguments, **options):
        print(text, file=sys.stderr, flush=True)
        return function(*arguments, **options)

    return call


prosody.measure = counted(prosody.measure, "measured a clip")
mifuse.fusion.teaching.refine = counted(mifuse.fusion.teaching.refine, "refined")
main()
"""


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this torch has no gloo",
)
def test_two_processes(tmp_path):
    """Two processes give the same student as one.

    Within a tolerance: each takes its batch norm statistics from its half of the batch. Without dropout and
    augmentation, whose random numbers are their own, nothing else differs.
    """
    world = World(tmp_path / "world")
    parts = ("stretch", "warp", "noise", "crop", "time_masks", "mel_masks")
    off = ["dropout=0", "fit.batch_size=32", *(f"fit.augment.{part}=0" for part in parts)]
    settings = [text for setting in off for text in ("--set", setting)]
    one = world.run(tmp_path / "one", *settings)
    assert one.exit_code == 0, one.output
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0", str(tmp_path / "counted.py")]
    (tmp_path / "counted.py").write_text(COUNTED)
    two = subprocess.run(
        [*launch, *world.arguments(tmp_path / "two"), *settings, "--json"],
        env=environment(world) | {"MIFUSE_CACHE": str(tmp_path / "cache")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert two.returncode == 0, two.stderr
    assert json.loads(two.stdout)["out"] == str(tmp_path / "two")  # one process speaks
    assert {p.name for p in tmp_path.iterdir()} == {"world", "one", "two", "counted.py", "cache"}
    assert two.stderr.count("measured a clip") == len(world.clips)  # once, not in every process
    assert two.stderr.count("refined") == 4  # three fusions and the reference
    first, second = (
        read_predictions(tmp_path / name / "predictions.csv", LABELS).probs for name in ("one", "two")
    )
    moved = np.abs(first["student"] - first["classifier"]).mean()
    assert np.abs(first["student"] - second["student"]).mean() < min(0.04, moved / 2)
    assert load_file(tmp_path / "two" / "model.safetensors")
