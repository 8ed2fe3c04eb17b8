"""The stand-in LALM: reads audio only, answers in the replay format, prefers neutral."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Manifest, read_manifest
from mifuse.demo.stand_in import measure, relate, stand_in_lalm, verbalise
from mifuse.demo.synth import make_domain
from mifuse.runs.metrics import unweighted_accuracy
from mifuse.teachers.draws import load_draws


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("phone")
    return read_manifest(make_domain(folder, "phone", speakers=5, clips_per_speaker=16, seed=2))


def test_draws_load_and_know_something(manifest: Manifest, tmp_path: Path) -> None:
    cache = AudioCache(tmp_path / "cache")
    file = stand_in_lalm(manifest, tmp_path / "draws.jsonl", draws=4, cache=cache)
    draws = load_draws(file, manifest.clips, LABELS, cache)
    assert draws.shape == (4, len(manifest), 4)
    assert len(np.unique(draws[:, 0], axis=0)) > 1  # draws differ
    labels = np.array([LABELS.index(clip.label or "") for clip in manifest.clips])
    assert 40 < unweighted_accuracy(labels, draws.mean(axis=0).argmax(axis=1), 4) < 80
    prior = draws.mean(axis=(0, 1))
    assert prior.argmax() == LABELS.index("neutral") and prior.max() > 0.3


def test_labels_do_not_matter(manifest: Manifest, tmp_path: Path) -> None:
    cache = AudioCache(tmp_path / "cache")
    few = replace(manifest, clips=manifest.clips[:6])
    blind = replace(few, clips=tuple(replace(clip, label=None) for clip in few.clips))
    texts = [
        stand_in_lalm(clips, tmp_path / name, draws=2, cache=cache).read_text()
        for clips, name in ((few, "a.jsonl"), (blind, "b.jsonl"))
    ]
    assert texts[0] == texts[1]
    assert set(json.loads(texts[0].splitlines()[0])) == {"path", "teacher", "draw", "probs"}


def test_probabilities_are_rounded_and_sum_to_one() -> None:
    probs = verbalise(np.random.default_rng(0).standard_normal((200, 4)), np.random.default_rng(1))
    assert np.allclose(probs * 20, np.round(probs * 20))
    assert np.allclose(probs.sum(axis=1), 1) and probs.min() >= -1e-12


@pytest.mark.parametrize(
    "samples", [np.zeros(1), np.zeros(16_000), np.ones(3_000), np.sin(np.arange(16_000) / 10)]
)
def test_any_samples_can_be_measured(samples: np.ndarray) -> None:
    assert np.isfinite(measure(samples.astype(np.float32))).all()


def test_pitch_of_a_known_tone() -> None:
    times = np.arange(16_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 150 * k * times) / k for k in range(1, 6))
    assert measure(0.1 * np.asarray(voice, np.float32))[0] == pytest.approx(12 * np.log2(150), abs=0.2)


def test_relating_one_clip_says_nothing() -> None:
    assert not relate(np.ones((1, 7))).any()
