"""Regressions of others, such as audEERING's of arousal, dominance and valence: teachers and sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mifuse.errors import MifuseError
from mifuse.models.classifier import load_model
from mifuse.models.hub import HubClassifier
from mifuse.teachers.store.database import DrawsStore
from tests.commands import run
from tests.dimensions import write_clips
from tests.test_checkpoints import edit, layers, rename, states, without_head
from tests.test_classifier import save_hub

THREE = ("arousal", "dominance", "valence")


@pytest.fixture(scope="module")
def head() -> dict[str, torch.Tensor]:
    found = layers("classifier.dense", "classifier.out_proj", outputs=3)
    return found | {"classifier.out_proj.bias": torch.full((3,), 0.5)}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, head: dict[str, torch.Tensor]) -> Path:
    """audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim, tiny and random."""
    folder = rename(save_hub(tmp_path_factory.mktemp("hub"), names=THREE), without_head, head)
    return edit(folder, architectures=["Wav2Vec2ForSpeechClassification"], problem_type="regression")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), 8)


def test_it_says_what_its_head_says(hub: Path, head: dict[str, torch.Tensor]) -> None:
    model, samples = load_model(f"hf:{hub}"), 0.1 * torch.randn(1, 8_000)
    assert isinstance(model, HubClassifier) and model.labels == ()
    assert model.dimensions == dict.fromkeys(THREE, (0.0, 1.0))
    with torch.inference_mode():
        dense = states(model, samples).mean(dim=1) @ head["classifier.dense.weight"].T
        dense = torch.tanh(dense + head["classifier.dense.bias"])
        numbers = dense @ head["classifier.out_proj.weight"].T + head["classifier.out_proj.bias"]
        torch.testing.assert_close(model(samples), numbers.clamp(0, 1))


def test_it_is_a_teacher_in_the_range_that_is_asked_for(hub: Path, manifest: Path, tmp_path: Path) -> None:
    store = tmp_path / "d.db"
    words = ("label", manifest, "--teacher", f"hf:{hub}", "--store", store, "--draws", "2")
    shown = json.loads(run(*words, "--dry-run", "--json"))
    assert (shown["labels"], shown["dimensions"]) == ("none", "arousal, dominance, valence")
    run(*words, "--targets", "arousal,valence", "--range", "1:7", "--range", "valence=-1:1")
    with DrawsStore(store, read_only=True) as opened:
        draws = [dict(row.answer.dimensions) for row in opened.draws(opened.sources()[0])]
    assert len(draws) == 16 and all(set(one) == {"arousal", "valence"} for one in draws)
    assert all(1 <= one["arousal"] <= 7 and -1 <= one["valence"] <= 1 for one in draws)
    assert "says the numbers arousal" in run(*words, "--targets", "joy", code=1)


def test_it_is_a_source(hub: Path, manifest: Path, tmp_path: Path) -> None:
    numbers = ("--targets", "arousal,valence", "--range", "1:7", "--range", "valence=-1:1")
    said = json.loads(run("evaluate", f"hf:{hub}", manifest, "--json", *numbers[2:], code=0))
    assert said["dimensions"]["arousal"]["n"] == 8 and "ua" not in said
    draws = tmp_path / "d.jsonl"
    rows = [
        {"path": f"c{i:02}.wav", "teacher": "lalm", "draw": k, "dimensions": {"arousal": 4 + k, "valence": 0}}
        for i in range(8)
        for k in range(2)
    ]
    draws.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = ("--set", "fit.steps=4", "--set", "fit.steps_per_epoch=2", "--set", "refresh=1", "--size", "xs")
    words = ("--target", manifest, "--draws", draws, *numbers, *quick, "-o", tmp_path / "s", "--json")
    found = json.loads(run("adapt", "--source", f"hf:{hub}", *words))
    assert 0 < found["dimensions"]["arousal"]["shares"]["classifier"] < 1
    student = load_model(tmp_path / "s")
    assert student.labels == () and student.dimensions == {"arousal": (1, 7), "valence": (-1, 1)}
    assert "regression of others" in run("export", hub, "-o", tmp_path / "b", code=1)


def test_what_it_is_not(hub: Path, tmp_path: Path, head: dict[str, torch.Tensor]) -> None:
    with pytest.raises(MifuseError, match=r"says numbers \(arousal, dominance, valence\) and no emotions"):
        load_model(f"hf:{hub}", ("happy", "sad"))
    names = tuple(f"LABEL_{i}" for i in range(3))
    unnamed = rename(save_hub(tmp_path, names=names), without_head, head)
    edit(unnamed, architectures=["Wav2Vec2ForSpeechClassification"], problem_type="regression")
    with pytest.raises(MifuseError, match="its numbers have no names: set id2label"):
        load_model(f"hf:{unnamed}")
    assert HubClassifier(str(hub), ("happy", "sad"), 0.1).labels == ("happy", "sad")  # its encoder is one
