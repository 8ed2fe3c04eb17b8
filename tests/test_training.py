import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mifuse.errors import MifuseError, TrainingError
from mifuse.models import training_state
from mifuse.models.augment import AugmentConfig
from mifuse.models.features import Features
from mifuse.models.frontend import N_MELS
from mifuse.models.speaker_norm import Sampler
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer, _odds, mc_dropout_draws, predict
from mifuse.models.training_state import TrainingState

pytestmark = pytest.mark.learning

LABELS = ("high", "low")
FAST = FitConfig(steps=40, steps_per_epoch=10, batch_size=16, augment=AugmentConfig(crop=24, time_mask=4))


@pytest.fixture(scope="module")
def toy():
    """Clips of noise in the upper or the lower mel bins, and which it is, (N, C)."""
    rng = np.random.default_rng(0)
    truth = np.arange(48) % 2
    lengths = rng.integers(30, 75, len(truth))
    frames = [rng.uniform(-9, -6, (n, N_MELS)) for n in lengths]
    for rows, which in zip(frames, truth, strict=True):
        rows[:, N_MELS // 2 * which :][:, : N_MELS // 2] += 3 * rng.uniform(0.3, 1, (len(rows), 1))
    offsets = np.cumsum([0, *lengths])
    return Features(np.concatenate(frames).astype(np.float16), offsets), np.eye(2)[truth]


def student(dropout=0.2):
    torch.manual_seed(0)
    return Student(labels=LABELS, size="xs", dropout=dropout)


def fitted(toy, config=FAST, seed=0, epochs=None):
    fit = Trainer(student(), toy[0], config, seed)
    for _ in range(fit.epochs if epochs is None else epochs):
        fit.run_epoch(toy[1])
    return fit


def same_weights(a, b):
    b = b.state_dict()
    return all(torch.equal(tensor, b[name]) for name, tensor in a.state_dict().items())


@pytest.fixture(scope="module")
def whole(toy):
    return fitted(toy)


def test_fits_a_toy_problem(toy, whole):
    features, labels = toy
    probs = predict(whole.average, features)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    assert (probs.argmax(1) == labels.argmax(1)).mean() > 0.9
    assert (whole.step, whole.epoch, whole.epochs) == (40, 4, 4)
    assert [r["step"] for r in whole.history] == [10, 20, 30, 40]
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]


def test_same_seed_same_weights(toy, whole):
    assert same_weights(fitted(toy).student, whole.student)
    assert not same_weights(fitted(toy, seed=1, epochs=1).student, fitted(toy, epochs=1).student)


def test_predictions_do_not_depend_on_the_batch(toy, whole):
    features, _ = toy
    one_by_one = predict(whole.average, features, batch_size=1)
    for size in (64, 5):
        # Clips of half a second are mostly edge, and convolutions carry a little of the padding across it.
        assert np.abs(predict(whole.average, features, batch_size=size) - one_by_one).mean() < 0.03
    alike = Features(features.frames[: 30 * 48], np.arange(49) * 30)
    alone = predict(whole.average, alike, batch_size=1)
    np.testing.assert_allclose(predict(whole.average, alike, batch_size=64), alone, atol=1e-4)


def test_average_follows(toy):
    start = student().state_dict()["head.weight"]
    moved = fitted(toy, epochs=1)
    step = moved.student.head.weight - start
    lag = moved.average.head.weight - start
    assert 0 < lag.norm() < step.norm()
    at_once = fitted(toy, replace(FAST, momentum=0.0), epochs=1)
    assert same_weights(at_once.average, at_once.student)


def test_learning_rate_is_one_cycle(toy):
    rates = []
    fit = Trainer(student(), toy[0], replace(FAST, steps_per_epoch=1))
    while fit.epoch < fit.epochs:
        fit.run_epoch(toy[1])
        rates.append(fit.optimizer.param_groups[0]["lr"])
    top = int(np.argmax(rates))
    assert max(rates) == pytest.approx(FAST.lr)
    assert 0 < top < len(rates) / 4
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.02 * FAST.lr


def test_last_epoch_may_be_short(toy):
    fit = fitted(toy, replace(FAST, steps=13))
    assert [r["step"] for r in fit.history] == [10, 13]


def test_collapse_is_noticed(toy):
    features, labels = toy
    all_high = np.tile([1.0, 0.0], (len(labels), 1))
    config = replace(FAST, steps=200, balance=0.0, collapse=0.35)
    fit = Trainer(student(), features, config)
    with pytest.raises(
        TrainingError, match=r"collapsed: \d+ % of its predictions are 'high'; raise diversity"
    ):
        while fit.epoch < fit.epochs:
            fit.run_epoch(all_high)
    assert fit.epoch >= 3
    off = Trainer(student(), features, replace(config, steps=60, collapse=0.0))
    while off.epoch < off.epochs:
        off.run_epoch(all_high)


def test_diversity_holds_off_collapse(toy):
    """A student that calls everything 'high' is drawn back by the term, and by nothing else."""
    features, labels = toy
    skewed = student(dropout=0.0)
    skewed.head.bias.data[0] = 4.0
    index, gradients, losses = np.arange(16), [], []
    for diversity in (0.0, 2.0):
        fit = Trainer(copy.deepcopy(skewed), features, replace(FAST, diversity=diversity))
        torch.manual_seed(0)
        terms, _ = fit._soft_label_loss(labels, index, features.batch(index))
        terms["loss"].backward()
        gradients.append(fit.student.head.bias.grad)
        losses.append(terms["loss"].item() + diversity * terms["diversity"].item())
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    assert terms["diversity"] < math.log(2) / 2
    pull = gradients[1] - gradients[0]
    # What the student says too often falls by a step against the gradient; what it hardly says rises.
    assert pull[0] > 0.01 and pull[1] < -0.01
    torch.testing.assert_close(pull.sum(), torch.tensor(0.0), atol=2e-3, rtol=0)


def test_balance_draws_classes_equally_often(toy):
    features, labels = toy
    rare = np.eye(2)[(np.arange(len(labels)) < 3).astype(int)]
    for balance, low, high in ((1.0, 0.4, 0.6), (0.0, 0.0, 0.15)):
        fit = Trainer(student(), features, replace(FAST, balance=balance, batch_size=400))
        index, _ = fit._batch(Sampler(_odds(rare, balance), toy[0].speakers))
        assert low <= rare[index, 1].mean() <= high


def test_mixtures_have_mixed_labels(toy):
    features, labels = toy
    fit = Trainer(student(), features, FAST)
    partners, shares = fit._mixture(12)
    assert sorted(partners.tolist()) == list(range(12))
    assert ((shares >= 0.5) & (shares <= 1)).all()
    index, logmel = fit._batch(Sampler(np.ones(len(labels)), features.speakers))
    torch.manual_seed(0)
    fit.model = lambda *view: torch.tensor([[20.0, 0.0]]).expand(len(index), 2)  # always sure of the first
    plain, _ = fit._soft_label_loss(labels, index, logmel)
    fit.config = replace(fit.config, mix=1.0)
    fit._mixture = lambda clips: (torch.arange(clips).flip(0), torch.full((clips,), 0.6))
    mixed, _ = fit._soft_label_loss(labels, index, logmel)
    fit.config = replace(fit.config, mix_up_to=len(labels) - 1)
    assert not fit.mixes
    targets = 0.6 * labels[index] + 0.4 * labels[index][::-1]
    expected = 0.95 * 20 * targets[:, 1].mean() + 0.05 * 10
    assert float(mixed["cross_entropy"]) == pytest.approx(expected, rel=1e-3)
    assert float(plain["cross_entropy"]) == pytest.approx(0.95 * 20 * labels[index, 1].mean() + 0.5, rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_loss_that_is_not_finite(toy, bad):
    fit = Trainer(student(), toy[0], FAST)
    fit.student.head.bias.data[0] = bad
    with pytest.raises(TrainingError, match=r"the loss is (nan|-?inf) at step 0: lower the learning rate"):
        fit.run_epoch(toy[1])


@pytest.mark.parametrize("after", [1, 3])
def test_resumed_run_is_the_same_run(toy, whole, tmp_path, after):
    arrays = {"targets": toy[1], "weight": np.arange(3.0)}
    TrainingState(tmp_path, {}).save(fitted(toy, epochs=after), arrays)
    torch.manual_seed(99)
    fit = Trainer(student(), toy[0], FAST)
    loaded = TrainingState(tmp_path, {}).load(fit)
    assert {k: v.tolist() for k, v in loaded.items()} == {k: v.tolist() for k, v in arrays.items()}
    assert fit.epoch == after
    while fit.epoch < fit.epochs:
        fit.run_epoch(loaded["targets"])
    assert same_weights(fit.student, whole.student)
    assert same_weights(fit.average, whole.average)
    assert [r["loss"] for r in fit.history] == [r["loss"] for r in whole.history]


def test_nothing_to_resume(toy, tmp_path):
    fit = Trainer(student(), toy[0], FAST)
    assert TrainingState(tmp_path / "absent", {}).load(fit) == TrainingState(None, {}).load(fit) == {}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"config": replace(FAST, lr=1e-4)}, "fit.lr"),
        (
            {"config": replace(FAST, augment=AugmentConfig(noise=0.1))},
            "fit.augment.time_mask|fit.augment.noise",
        ),
        ({"seed": 1}, "seed"),
        ({"settings": {"clips": "b"}}, "clips"),
    ],
)
def test_other_settings_are_not_resumed(toy, tmp_path, change, name):
    TrainingState(tmp_path, {"clips": "a"}).save(fitted(toy, epochs=1), {})
    fit = Trainer(student(), toy[0], change.get("config", FAST), change.get("seed", 0))
    with pytest.raises(TrainingError, match=rf"was started with another ({name}): resume with the same"):
        TrainingState(tmp_path, change.get("settings", {"clips": "a"})).load(fit)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff" * 100])
def test_damaged_state(toy, tmp_path, content):
    (tmp_path / "state.safetensors").write_bytes(content)
    with pytest.raises(TrainingError, match=r"state\.safetensors is damaged .*--force"):
        TrainingState(tmp_path, {}).load(Trainer(student(), toy[0], FAST))


def test_state_of_another_program(toy, tmp_path):
    student().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "state.safetensors")
    assert load_file(tmp_path / "state.safetensors")
    with pytest.raises(TrainingError, match="is damaged"):
        TrainingState(tmp_path, {}).load(Trainer(student(), toy[0], FAST))


def test_full_disk_keeps_the_old_state(toy, tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("IoError: No space left on device")

    fit = fitted(toy, epochs=1)
    TrainingState(tmp_path, {}).save(fit, {})
    before = (tmp_path / "state.safetensors").read_bytes()
    monkeypatch.setattr(training_state, "save_file", full)
    with pytest.raises(MifuseError, match=r"cannot be written .*make room"):
        TrainingState(tmp_path, {}).save(fit, {})
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_mc_dropout_draws(toy, whole):
    features, labels = toy
    draws = mc_dropout_draws(whole.average, features, 3, seed=5)
    assert draws.shape == (3, *labels.shape)
    np.testing.assert_allclose(draws.sum(2), 1, atol=1e-5)
    assert np.array_equal(draws, mc_dropout_draws(whole.average, features, 3, seed=5))
    assert not np.array_equal(draws, mc_dropout_draws(whole.average, features, 3, seed=6))
    assert np.abs(draws[0] - draws[1]).mean() > 1e-4
    assert not any(module.training for module in whole.average.modules())
    # Batch norm keeps still: the mean of many draws is near the prediction.
    near = np.abs(mc_dropout_draws(whole.average, features, 20).mean(0) - predict(whole.average, features))
    assert near.mean() < 0.1


def test_without_dropout_draws_agree(toy):
    torch.manual_seed(0)
    draws = mc_dropout_draws(student(dropout=0.0), toy[0], 2)
    assert np.array_equal(draws[0], draws[1])
