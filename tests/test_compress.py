"""Narrower students: channels are chosen as they should be, taught without labels, and tried widest first."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from mifuse.errors import MifuseError
from mifuse.exporting import compress
from mifuse.exporting.compress import DISTIL, distilled, narrowed, within
from mifuse.models.features import Features
from mifuse.models.frontend import N_MELS
from mifuse.models.student import Student, size_of, width_of
from mifuse.models.training import Trainer, predict
from mifuse_export.settings import Budget, Cost

pytestmark = pytest.mark.learning


@pytest.fixture
def student() -> Student:
    """Random weights, a norm that has seen data."""
    torch.manual_seed(0)
    made = Student(size="w3", labels=("calm", "loud", "other"))
    made.train()(0.1 * torch.randn(8, 16_000))
    return made.eval()


KINDS = np.arange(40) % 3  # of the clips


@pytest.fixture
def features() -> Features:
    """40 clips of half a second in three kinds, which differ in tempo and spectrum."""
    rng, kinds = np.random.default_rng(0), KINDS[:, None, None]
    tempo, bins = np.array([0, 0.15, 0.6])[kinds], np.linspace(0, 1, N_MELS)
    swell = np.sin(tempo * np.arange(50)[:, None] + rng.uniform(0, 6, (40, 1, 1)))
    frames = (
        4 * swell * np.cos(3 * np.pi * (1 + kinds) * bins) + 0.5 * rng.standard_normal((40, 50, N_MELS)) - 6
    )
    return Features(frames.reshape(-1, N_MELS).astype(np.float16), np.arange(41) * 50)


def test_no_channel_removed_no_change(student: Student) -> None:
    samples = 0.1 * torch.randn(3, 8_000)
    same = narrowed(student, 3)
    assert same.size == "w3" and not same.training
    assert torch.equal(same(samples), student(samples))


def test_channels_that_do_nothing_are_removed_without_a_change(student: Student) -> None:
    wide = copy.deepcopy(student)
    for block in wide.blocks:
        third = torch.arange(len(block.norm.weight)) % 3 == 1
        block.norm.weight.data[third] = 0
        block.norm.bias.data[third] = 0
    wide.norm.reset_running_stats()  # or what is silent would lie off its mean
    samples = 0.1 * torch.randn(3, 8_000)
    narrow = narrowed(wide, 2)
    assert [len(block.norm.weight) for block in narrow.blocks] == [6, 12, 16, 16, 16]
    # But for the floor of a deviation, which the head reads of silent channels, too.
    torch.testing.assert_close(narrow(samples), wide(samples), rtol=0, atol=1e-3)
    assert (narrow.labels, narrow.size, narrow.dropout.p) == (wide.labels, "w2", wide.dropout.p)


def test_channels_of_large_filters_go_first(student: Student) -> None:
    block = student.blocks[0]
    block.norm.running_var.fill_(1.0)
    block.norm.weight.data.fill_(1.0)
    block.conv.weight.data[[1, 4, 8]] *= 9
    block.norm.weight.data[4] = -1.0  # its sign does not matter
    block.norm.weight.data[8] = 1e-3  # made small again by the norm
    kept = narrowed(student, 1).blocks[0].conv.weight
    for filters in block.conv.weight[[1, 4]]:
        assert any(torch.equal(filters, mine) for mine in kept)
    assert not any(torch.equal(block.conv.weight[8], mine) for mine in kept)


def test_it_learns_what_the_student_says(student: Student, features: Features) -> None:
    config = replace(DISTIL, steps=40, steps_per_epoch=20, batch_size=16, collapse=0.0)
    fit = Trainer(student.train(), features, config)
    while fit.epoch < fit.epochs:
        fit.run_epoch(np.eye(3)[KINDS])
    teacher = fit.average
    before = copy.deepcopy(teacher.state_dict())
    start, records = narrowed(teacher, 2), []
    made = distilled(teacher, start, features, config=config, progress=records.append)
    target = predict(teacher, features)
    errors = [np.abs(predict(model, features) - target).mean() for model in (start, made)]
    assert errors[1] < 0.3 * errors[0]  # measured: 0.018 and 0.241
    assert [record["step"] for record in records] == [20, 40]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert (made.training, made.dropout.p) == (False, student.dropout.p)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of teaching."""
    monkeypatch.setattr(compress, "DISTIL", replace(DISTIL, steps=1, batch_size=2))


def by_width(student: Student) -> Cost:
    return Cost(kb=10.0 * width_of(student.size), ms=0.1 * width_of(student.size))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("width", range(2, 9))
def test_the_widest_that_fits_comes_first(width: int, features: Features) -> None:
    student = Student(size=size_of(width))
    for budget, widest in ((Budget(ms=0.1 * width), width), (Budget(kb=35), min(3, width)), (Budget(15), 1)):
        first = next(within(budget, student, lambda: features, by_width))
        assert width_of(first.size) == widest
        assert (first is student) == (widest == width)


@pytest.mark.usefixtures("quick")
def test_narrower_ones_follow_and_come_to_an_end(features: Features) -> None:
    for width, sizes in ((3, ["w3", "w2", "w1"]), (1, ["w1"])):
        student = Student(size=f"w{width}")
        made = list(within(Budget(kb=100), student, lambda: features, by_width))
        assert [one.size for one in made] == sizes and made[0] is student


@pytest.mark.parametrize("size", ["w1", "w5"])
def test_nothing_is_taught_for_a_budget_out_of_reach(size: str, tmp_path: Path) -> None:
    def features() -> Features:
        raise AssertionError("nothing is to be taught")

    with pytest.raises(
        MifuseError, match=r"the budget of 5 kB: the narrowest costs 10\.0 kB and 0\.1 ms here"
    ):
        list(islice(within(Budget(kb=5), Student(size=size), features, by_width), 1))
