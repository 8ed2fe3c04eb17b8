"""Each baseline on a toy problem that it is made for, and the pieces of its formulas by hand."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.baselines import BASELINES, Task
from benchmarks.baselines.dine import Dine, DineConfig, divergence, smooth
from benchmarks.baselines.method import diversity, entropy, nearest
from benchmarks.baselines.nrc import Nrc, NrcConfig, affinity
from benchmarks.baselines.plue import Plue, PlueConfig, certainty, negative_loss
from benchmarks.baselines.prode import Prode, denoise, mutual_information
from benchmarks.baselines.shot import Shot, centroid_labels
from benchmarks.baselines.tent import Tent, TentConfig
from mifuse.fusion.recipes import AdaptConfig
from mifuse.models.augment import AugmentConfig
from mifuse.models.features import Features
from mifuse.models.frontend import N_MELS
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer, predict

pytestmark = pytest.mark.learning

CLIPS, CLASSES = 160, 4
AUGMENT = AugmentConfig(crop=24, stretch=0.1, warp=0.02, noise=0.0, time_mask=4, mel_mask=2)
FIT = FitConfig(steps=60, steps_per_epoch=10, batch_size=32, augment=AUGMENT)
METHODS = ["tent", "shot", "nrc", "plue", "dine", "prode"]


def recordings(seed, shift=0.0, gain=1.0, contrast=1.0):
    """Clips of noise in one of four mel bands, and which: (features, classes).

    Args:
        shift: mel bins by which the domain's bands lie higher; 8 make a class look like the next.
        gain: how loud the bands are.
        contrast: of loud and soft.
    """
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(CLIPS) % CLASSES)
    frames = []
    for k in truth:
        band = np.exp(-0.5 * ((np.arange(N_MELS) - 4 - 8 * k - shift - rng.normal() / 2) / 2.5) ** 2)
        sound = 3 * gain * band * rng.uniform(-1, 1, (24, 1))
        frames.append(-6 + contrast * (0.35 * rng.standard_normal((24, N_MELS)) + sound))
    return Features(np.concatenate(frames).astype(np.float16), np.arange(CLIPS + 1) * 24), truth


def accuracy(probs, truth):
    return (probs.argmax(1) == truth).mean()


def mean_entropy(student, features):
    return float(entropy(torch.from_numpy(predict(student, features)).log()))


@pytest.fixture(scope="module")
def classifier():
    features, truth = recordings(seed=0)
    torch.manual_seed(0)
    fit = Trainer(Student(labels="abcd", size="s"), features, replace(FIT, steps=80))
    while fit.epoch < fit.epochs:
        fit.run_epoch(np.eye(CLASSES)[truth])
    return fit.average.eval()


@pytest.fixture(scope="module")
def shifted(classifier):
    """A target whose clusters the classifier mistakes for each other, with a LALM that guesses 45 %."""
    features, truth = recordings(seed=1, shift=3.8, gain=0.8)
    rng = np.random.default_rng(5)
    answered = np.where(rng.random(CLIPS) < 0.45, rng.integers(0, CLASSES, CLIPS), truth)
    noise = rng.dirichlet(np.ones(CLASSES), (3, CLIPS))
    task = Task(
        features, 0.6 * np.eye(CLASSES)[answered] + 0.4 * noise, classifier, AdaptConfig(size="s", fit=FIT)
    )
    assert 0.6 < accuracy(predict(classifier, features), truth) < 0.9
    assert 0.6 < accuracy(task.lalm_draws.mean(0), truth) < 0.7
    return task, truth


@pytest.mark.parametrize("name", ["lalm-only", "shot", "nrc", "plue", "dine", "prode"])
def test_learns_the_shifted_domain(shifted, name):
    task, truth = shifted
    baseline = BASELINES[name]
    starts = {"LALM": task.lalm_draws.mean(0), "classifier": predict(task.classifier, task.features)}
    start = max(accuracy(p, truth) for who, p in starts.items() if baseline.sees in (who, "both"))
    wrong = 1 - accuracy(predict(baseline(task), task.features), truth)
    assert wrong < 0.6 * (1 - start)


def test_tent_learns_a_flatter_domain(classifier):
    features, truth = recordings(seed=1, gain=0.4, contrast=0.1)
    task = Task(features, np.empty((1, CLIPS, CLASSES)), classifier, AdaptConfig(fit=FIT))
    assert accuracy(predict(classifier, features), truth) < 0.7
    student = BASELINES["tent"](task)
    assert accuracy(predict(student, features), truth) > 0.95
    # The statistics do most of it; the entropy, which is minimised, must be what the training lowers.
    still, long = (Tent(task, TentConfig(lr, 4)).adapted() for lr in (0.0, 1e-3))
    assert mean_entropy(long, features) < mean_entropy(student, features) < mean_entropy(still, features)
    ours, theirs = student.state_dict(), classifier.state_dict()
    changed = {name.rpartition(".")[0] for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed
    assert all(isinstance(student.get_submodule(name), _BatchNorm) for name in changed)


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_student_and_the_classifier_stays(shifted, name):
    task = replace(shifted[0], config=AdaptConfig(size="s", fit=replace(FIT, steps=2, steps_per_epoch=1)))
    before = copy.deepcopy(task.classifier.state_dict())
    students = [BASELINES[name](replace(task, seed=seed)).state_dict() for seed in (3, 3, 4)]
    first, second, other = (torch.cat([w.flatten().float() for w in s.values()]) for s in students)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    after = task.classifier.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_every_baseline_says_what_it_sees():
    assert set(METHODS) < set(BASELINES)
    assert {b.sees for b in BASELINES.values()} == {"LALM", "classifier", "both"}
    assert all(b.title and b.about for b in BASELINES.values())


@pytest.mark.parametrize("name", METHODS)
def test_sees_what_it_says(shifted, name):
    """Other draws change nothing where the classifier alone is seen, and another classifier's answers nothing
    where the LALM alone is."""
    task = replace(shifted[0], config=AdaptConfig(size="s", warm_start=False, fit=replace(FIT, steps=2)))
    head = copy.deepcopy(task.classifier)
    head.head.bias.data += torch.tensor([2.0, 0.0, 0.0, 0.0])
    first, draws, classifier = (
        torch.cat([w.flatten().float() for w in BASELINES[name](t).state_dict().values()])
        for t in (task, replace(task, lalm_draws=task.lalm_draws[..., ::-1]), replace(task, classifier=head))
    )
    sees = BASELINES[name].sees
    assert torch.equal(first, draws) == (sees == "classifier")
    assert torch.equal(first, classifier) == (sees == "LALM")


def test_entropies():
    log_probs = torch.tensor([[0.5, 0.5], [1.0, 1e-9]]).log()
    assert float(entropy(log_probs)) == pytest.approx(math.log(2) / 2, abs=1e-6)
    mean = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(diversity(log_probs)) == pytest.approx(mean, abs=1e-6)


def angles(*degrees):
    """Unit vectors, (N, 2)."""
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def test_nearest_leaves_out_the_clip_itself():
    bank = angles(0.0, 10.0, 25.0, 90.0)
    assert nearest(bank, bank, torch.arange(4), 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert nearest(bank[3:], bank, torch.tensor([3]), 9).tolist() == [[2, 1, 0]]


def test_shot_centroids():
    embeddings = angles(0.0, 6.0, 90.0, 84.0)
    probs = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.1, 0.9, 0.0], [0.2, 0.8, 0.0]])
    # The second clip is on the side of the first, whatever its own prediction; class 2 has no clip.
    assert centroid_labels(embeddings, probs).tolist() == [0, 0, 1, 1]
    # Soft centroids at 8.4° and 33° leave the clip at 25° to the second; those of the labels, at 2.5° and
    # 52.5°, to the first.
    probs = torch.tensor([[0.8, 0.2], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    assert centroid_labels(angles(0.0, 5.0, 25.0, 80.0), probs).tolist() == [0, 0, 0, 1]


def test_shot_keeps_the_head(shifted):
    task = replace(shifted[0], config=AdaptConfig(fit=replace(FIT, steps=2)))
    student = Shot(task).adapted()
    assert torch.equal(student.head.weight, task.classifier.head.weight)
    ours, theirs = (next(iter(s.parameters())) for s in (student, task.classifier))
    assert not torch.equal(ours, theirs)


def test_nrc_reciprocity():
    further = torch.tensor([[[1, 0], [2, 3]], [[1, 2], [0, 3]]])
    assert affinity(torch.tensor([0, 1]), further, 0.1).tolist() == [[1.0, pytest.approx(0.1)]] * 2


def test_nrc_sums_the_neighbourhood(shifted):
    method = Nrc(shifted[0], NrcConfig(neighbours=1, expanded=1))
    method.bank = angles(0.0, 10.0, 25.0, 90.0)
    method.scores = torch.eye(4)
    # 0 and 1 are each other's nearest; the nearest of 2 is 1, whose nearest is 0.
    wanted = method._wanted(torch.tensor([0, 2]))
    np.testing.assert_allclose(wanted, [[1.1, 1.0, 0, 0], [0.1, 0.1, 1.0, 0]], atol=1e-6)


def test_dine_smoothing():
    probs = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    np.testing.assert_allclose(smooth(probs, 1), [[0.6, 0.2, 0.2], [0.25, 0.25, 0.5]], atol=1e-6)
    assert torch.equal(smooth(probs, 3), probs)
    distance = float(divergence(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]]).log()))
    assert distance == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-6)


def test_dine_remembers_predictions(shifted):
    task = replace(shifted[0], config=AdaptConfig(size="s", fit=replace(FIT, steps=8, steps_per_epoch=2)))
    method = Dine(task, DineConfig(updates=2, tuning=0.0))
    start = method.memory
    uniform = np.ones((CLIPS, CLASSES))
    for _ in range(2):
        method.start_epoch()
        assert torch.equal(method.memory, start)  # not before epoch 2 of 4
        method.fit.run_epoch(uniform, method.loss)
    predictions = method.survey()[1].exp()
    method.start_epoch()
    np.testing.assert_allclose(method.memory, 0.6 * start + 0.4 * predictions, atol=1e-6)


def test_prode_correction():
    lalm, student = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.6, 0.4]]).log()
    source = torch.tensor([[0.8, 0.2]])
    shares = [0.6 * math.exp(-0.8), 0.4 * math.exp(-0.2)]
    corrected = denoise(lalm, source, student, 1.0)[0].tolist()
    assert corrected == pytest.approx([share / sum(shares) for share in shares])
    assert denoise(lalm, source, student, 0.0)[0].tolist() == [0.5, 0.5]


def test_prode_mutual_information():
    same, apart = torch.eye(2), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    assert float(mutual_information(same, same)) == pytest.approx(math.log(2), abs=1e-5)
    assert float(mutual_information(same, apart)) == pytest.approx(0, abs=1e-5)


def test_prode_survives_a_lalm_that_says_zero(shifted):
    task = shifted[0]
    sure = np.eye(CLASSES)[task.lalm_draws.argmax(2)]
    method = Prode(replace(task, lalm_draws=sure, config=AdaptConfig(fit=replace(FIT, steps=2))))
    assert all(torch.isfinite(weight).all() for weight in method.adapted().state_dict().values())


def test_plue_weights():
    mean = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    assert certainty(mean).tolist() == pytest.approx([math.exp(-1), 1.0, math.exp(-0.5)], abs=1e-5)


def test_plue_learns_from_another_class():
    two = torch.tensor([[0.7, 0.3]]).log()
    assert negative_loss(two, torch.tensor([0])).tolist() == pytest.approx([-math.log(0.7)])
    sure = torch.tensor([[1.0, 1e-9, 1e-9, 1e-9]]).log().expand(100, -1)
    assert float(negative_loss(sure, torch.zeros(100, dtype=torch.int64)).max()) < 1e-6


@torch.no_grad()
def test_plue_pairs_that_shared_a_label_are_no_negatives(shifted):
    method = Plue(shifted[0], PlueConfig(history=2))
    clips = torch.arange(CLIPS)
    view = method.plain(shifted[0].features.batch(clips.numpy()))
    method.fit.student.eval()
    embedding, _ = method.forward(view)
    method.history = torch.zeros(CLIPS, 2, dtype=torch.int64)
    assert float(method._contrast(embedding, clips, view)) == 0  # no negative is left
    method.history[::2] = torch.tensor([1, 0])  # shared once
    assert float(method._contrast(embedding, clips, view)) == 0
    method.history[::2] = torch.tensor([1, 1])
    assert float(method._contrast(embedding, clips, view)) > 1
