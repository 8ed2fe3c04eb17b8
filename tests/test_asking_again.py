"""`--draws auto`: clips whose label is sure are not paid for twice, the others are asked about again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from draws_files import line, make_speech, write_lines

from mifuse.cli import main
from mifuse.clips.labels import LABELS
from mifuse.teachers.asking_again import MOST, PILOT, worth_asking
from mifuse.teachers.draws import load_draws


@pytest.mark.parametrize("more", [1, 2, 4])
def test_unsure_clips_are_asked_again(more: int) -> None:
    rng = np.random.default_rng(0)
    unsure = rng.permutation(1000) < 400
    first = np.where(unsure, rng.uniform(0.2, 0.8, (MOST, 1000)), 0.95)
    drawn = np.stack([first, 1 - first], axis=-1)
    counts = np.full(1000, more)
    while True:
        again = worth_asking([drawn[:k, i] for i, k in enumerate(counts)], more)
        if not again.any():
            break
        counts[again] += more
    assert counts.max() <= MOST
    assert counts[unsure].mean() >= 1.4 * more
    assert counts[~unsure].mean() <= more + PILOT / 600
    means = np.array([drawn[:k, i].mean(axis=0) for i, k in enumerate(counts)])
    labels, once, all_of_them = (probs.argmax(axis=1) for probs in (means, drawn[0], drawn.mean(axis=0)))
    changed = labels != all_of_them
    assert not changed[~unsure].any()
    assert changed[unsure].mean() < (once != all_of_them)[unsure].mean()


def test_one_draw_each_starts_with_a_pilot() -> None:
    drawn = [np.array([[0.6, 0.4]])] * 200
    assert np.flatnonzero(worth_asking(drawn, 1)).tolist() == list(range(PILOT))


def test_a_teacher_that_never_wavers_is_asked_once() -> None:
    assert not worth_asking([np.array([[0.7, 0.3]] * 2)] * 50, 1).any()


def test_all_the_way(tmp_path: Path) -> None:
    make_speech(tmp_path, 6)
    hot = [{name: float(name == label) for name in LABELS} for label in LABELS]
    rows = [line(i, k, probs=hot[k % 4 if i == 0 else i % 4]) for i in range(6) for k in range(8)]
    draws = write_lines(tmp_path / "lalm_draws.jsonl", rows)
    store, manifest = tmp_path / "draws.db", tmp_path / "target.csv"
    command = [
        "label",
        str(manifest),
        "--teacher",
        f"replay:{draws}",
        "--draws",
        "auto",
        "--store",
        str(store),
    ]
    shown = json.loads(CliRunner().invoke(main, [*command, "--json"], catch_exceptions=False).stdout)
    # The pilot asks about each of so few clips twice; only the first then goes on.
    assert shown["added"] == 5 * 2 + MOST
    assert shown["missing"] == 0
    from mifuse.clips.manifest import read_manifest

    assert load_draws(store, read_manifest(manifest).clips).shape == (MOST, 6, 4)
    again = json.loads(CliRunner().invoke(main, [*command, "--json"], catch_exceptions=False).stdout)
    assert (again["added"], again["present"]) == (0, shown["added"])
