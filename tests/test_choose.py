"""`mifuse choose`: one clip for each group of clips that sound alike, found without a label."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import make_domain
from mifuse.voices.choosing import doubted, typical


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["choose", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers x 24 clips of four emotions, the last speaker in the test split."""
    folder = tmp_path_factory.mktemp("choose")
    return make_domain(
        folder, "phone", speakers=3, clips_per_speaker=24, test_speakers=1, seed=0, seconds=0.6
    )


def test_each_group_has_one() -> None:
    rng = np.random.default_rng(0)
    group = rng.permutation(np.arange(200) % 4)
    values = 20 * np.eye(4)[group] + rng.standard_normal((200, 4))
    rows = typical(values, 4)
    assert sorted(group[rows]) == [0, 1, 2, 3]
    assert np.linalg.norm(values[rows] - 20 * np.eye(4)[group[rows]], axis=1).max() < 1.5  # from the middle
    assert len(typical(np.zeros((20, 3)), 4)) == 1


def test_a_manifest_to_fill(target: Path) -> None:
    few = target.parent / "few.csv"
    result = run(target, "-o", few, "--clips", 12)
    assert f"{few}: 12 of 48 clips" in result.output and f"--labelled {few}" in result.output
    with few.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["path"] for row in rows}) == 12 and {row["label"] for row in rows} == {""}
    labels = {clip.name: clip.label for clip in read_manifest(target).select("adapt").clips}
    assert {row["path"] for row in rows} <= labels.keys(), "clips to adapt to, none of the test split"
    assert {labels[row["path"]] for row in rows} == set(labels.values()), "every emotion is among them"
    again = json.loads(run(target, "-o", few, "--clips", 12, "--force", "--json").stdout)
    assert again == {"manifest": str(few), "clips": [row["path"] for row in rows], "of": 48}


def test_labels_of_the_manifest_change_nothing(target: Path) -> None:
    bare = target.parent / "bare.csv"
    with target.open(newline="") as file, bare.open("w", newline="") as out:
        writer = csv.DictWriter(out, ["path", "speaker", "split"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(csv.DictReader(file))
    found = [
        json.loads(run(manifest, "-o", target.parent / "x.csv", "--force", "--json").stdout)["clips"]
        for manifest in (target, bare)
    ]
    assert found[0] == found[1]


def test_what_cannot_be_chosen_is_said(target: Path) -> None:
    few = target.parent / "more.csv"
    assert (
        "49 of 48 clips cannot be chosen: choose 1 to 48"
        in run(target, "-o", few, "--clips", 49, code=1).output
    )
    assert not few.exists()
    few.write_text("mine")
    assert f"{few} exists: choose another name, or add --force" in run(target, "-o", few, code=1).output
    assert few.read_text() == "mine"
    run(target, "-o", few, "--force", "--clips", 0, code=2)


def test_names_that_the_lalm_does_not_bear_out() -> None:
    truth = np.tile(np.arange(4), 25)
    labels = 0.1 / 3 + (0.9 - 0.1 / 3) * np.eye(4)[truth]
    biased = 0.5 * np.eye(4)[truth] + np.array(
        [0.0, 0.0, 0.4, 0.1]
    )  # many neutral, but it knows what is what
    assert doubted(labels, biased) == []
    swapped = np.where(truth == 3, 0, truth)
    said = 0.6 * np.eye(4)[swapped] + 0.1  # sad clips are called angry
    assert doubted(labels, said) == [3]
    assert doubted(labels, np.full((100, 4), 0.25)) == [0, 1, 2, 3]
    assert doubted(labels[:40], said[:40]) == [], "too few to decide"
