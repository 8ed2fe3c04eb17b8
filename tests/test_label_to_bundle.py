"""From recordings to the device through a real SDK: label, adapt, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import make_domain
from mifuse.models.student import Student
from mifuse_runtime import Recognizer, read_audio
from tests.llm_server import LlmServer


def loud_is_angry(request: dict[str, Any], labels: list[str]) -> dict[str, float]:
    """A LALM of one rule; its draws differ a little."""
    from tests.llm_server import audio_of

    level = 20 * np.log10(np.sqrt(np.mean(audio_of(request) ** 2)) + 1e-9)
    centre = {"angry": -16.0, "happy": -19.0, "neutral": -22.0, "sad": -25.0}
    chance = np.random.default_rng(abs(hash(str(request["messages"][1]["content"][0]))))
    scores = np.array([-abs(level - centre[label]) / 3 for label in labels]) + chance.normal(
        0, 0.2, len(labels)
    )
    probs = np.exp(scores) / np.exp(scores).sum()
    return dict(zip(labels, probs.round(4).tolist(), strict=True))


def test_label_adapt_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    manifest = make_domain(tmp_path / "phone", "phone", speakers=3, clips_per_speaker=4, seconds=1.0)
    torch.manual_seed(0)
    Student(size="xs").save_pretrained(tmp_path / "source")

    def mifuse(*words: object) -> str:
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.stdout

    with LlmServer(answer=loud_is_angry, script=["429", "500", "sum", "prose"]) as server:
        done = mifuse(
            "label", manifest, "--teacher", "openai", "--model", "gpt-audio", "--draws", 4, "--yes", "--json",
            "--base-url", server.url + "/v1", "--store", tmp_path / "draws.db", "--budget-usd", 1,
        )  # fmt: skip
        assert json.loads(done)["added"] == 48 and set(server.sold.values()) == {1}
    assert "gpt-audio" in mifuse("draws", "info", tmp_path / "draws.db", "--manifest", manifest)
    bought = (tmp_path / "draws.db").read_bytes()
    mifuse(
        "adapt", "--source", tmp_path / "source", "--target", manifest, "--draws", tmp_path / "draws.db",
        "-o", tmp_path / "student", "--size", "xs", "--set", "fit.steps=4", "--set", "classifier_draws=2",
        "--set", "refine.folds=2", "--set", "refine.rounds=1",
    )  # fmt: skip
    assert (
        tmp_path / "draws.db"
    ).read_bytes() == bought  # labels are calibrated in fusion, never in the store
    mifuse("export", tmp_path / "student", "-o", tmp_path / "bundle", "--format", "onnx")
    recognizer = Recognizer.load(tmp_path / "bundle")
    clip = read_manifest(manifest).clips[0]
    scores = recognizer.predict(read_audio(clip.path, recognizer.sample_rate)).scores
    assert set(scores) == set(LABELS) and sum(scores.values()) == pytest.approx(1, abs=1e-5)
