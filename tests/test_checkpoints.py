"""Checkpoints that people publish, tiny and random: their config fields, names of labels and keys of weights.

Each loads, or is refused with the true reason.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mifuse.errors import MifuseError
from mifuse.models.classifier import load_model
from mifuse.models.hub import HubClassifier, HubModel
from tests.test_classifier import SMALL, save_hub

FOUR = ("neu", "hap", "ang", "sad")  # superb's
EIGHT = ("angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised")


def edit(folder: Path, **fields: object) -> Path:
    """Change its config.json; None removes a field."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return folder


def rename(folder: Path, change: Callable[[str], str], more: dict[str, torch.Tensor] | None = None) -> Path:
    """Change the keys of its weights; those that get no name go."""
    weights = {change(key): value for key, value in load_file(folder / "model.safetensors").items()}
    weights.pop("", None)
    save_file(weights | (more or {}), folder / "model.safetensors", {"format": "pt"})
    return folder


def without_head(key: str) -> str:
    return "" if key.startswith(("projector", "classifier")) else key


def layers(*names: str, outputs: int) -> dict[str, torch.Tensor]:
    """Random dense layers: all but the last of the model's width."""
    torch.manual_seed(1)
    found = {}
    for name in names:
        rows = outputs if name == names[-1] else SMALL["hidden_size"]
        found |= {
            f"{name}.weight": torch.randn(rows, SMALL["hidden_size"]),
            f"{name}.bias": torch.randn(rows),
        }
    return found


def states(model: HubModel, samples: torch.Tensor) -> torch.Tensor:
    """What the encoder gives for samples (1, n): (1, frames, hidden)."""
    return model.model.wav2vec2(model._normalised(samples)).last_hidden_state


@pytest.mark.parametrize("family", ["Wav2Vec2", "Hubert"])
def test_superb(tmp_path: Path, family: str) -> None:
    folder = edit(save_hub(tmp_path, family, FOUR), use_weighted_layer_sum=True, finetuning_task="superb_er")
    rename(folder, str, {"layer_weights": torch.tensor([0.9, 0.1])})
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

    def as_saved_in_2021(key: str) -> str:
        for new, name in old.items():
            key = key.replace(new, name)
        return key

    expected = load_model(f"hf:{folder}")(torch.ones(1, 8_000))
    rename(folder, as_saved_in_2021)
    assert any(key.endswith("weight_g") for key in load_file(folder / "model.safetensors"))
    model = load_model(f"hf:{folder}")
    assert isinstance(model, HubClassifier)
    assert model.labels == ("angry", "happy", "neutral", "sad")
    torch.testing.assert_close(model(torch.ones(1, 8_000)), expected)
    torch.testing.assert_close(model.model.layer_weights.data, torch.tensor([0.9, 0.1]))


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (EIGHT, ("angry", "happy", "neutral", "sad")),  # Dpngtm, firdhokk, ehcalabres
        ((*EIGHT[:-1], "suprised"), ("angry", "happy", "neutral", "sad")),  # Hatman's slip of the pen
        (("anger", "disgust", "enthusiasm", "fear"), ("angry", "disgust", "excited", "fear")),  # Aniemore's
        (("злость", "радость", "нейтрально", "грусть"), ("angry", "happy", "neutral", "sad")),
        (("生气", "开心", "中立", "难过"), ("angry", "happy", "neutral", "sad")),
    ],
)
def test_names_of_labels(tmp_path: Path, names: tuple[str, ...], labels: tuple[str, ...]) -> None:
    assert load_model(f"hf:{save_hub(tmp_path, names=names)}").labels == labels


def test_a_slip_of_the_pen_is_known(tmp_path: Path) -> None:
    names = (*EIGHT[:-1], "suprised")
    assert load_model(f"hf:{save_hub(tmp_path, names=names)}", ("happy", "surprise")).labels == (
        "happy",
        "surprise",
    )


@pytest.mark.parametrize("last", ["out_proj", "output"])
def test_the_head_of_speech_classification(tmp_path: Path, last: str) -> None:
    """Aniemore's, ehcalabres' and many more: a dense layer, tanh and another one on the mean over time."""
    head = layers("classifier.dense", f"classifier.{last}", outputs=len(EIGHT))
    folder = rename(save_hub(tmp_path, names=EIGHT), without_head, head)
    edit(folder, architectures=["Wav2Vec2ForSpeechClassification"], pooling_mode="mean", final_dropout=0.1)
    edit(folder, auto_map={"AutoModelForAudioClassification": "models.Wav2Vec2ForSpeechClassification"})
    model, samples = HubModel(str(folder)), 0.1 * torch.randn(1, 8_000)
    with torch.inference_mode():
        mean = states(model, samples).mean(dim=1)
        dense = torch.tanh(mean @ head["classifier.dense.weight"].T + head["classifier.dense.bias"])
        logits = dense @ head[f"classifier.{last}.weight"].T + head[f"classifier.{last}.bias"]
        torch.testing.assert_close(model(samples), logits.softmax(-1))
    edit(folder, pooling_mode="max")
    with pytest.raises(
        MifuseError, match=r"no trained head \(classifier.*; it has classifier\.dense\.bias, "
    ):
        HubModel(str(folder))


def test_a_recognisers_head_for_emotions(tmp_path: Path) -> None:
    """r-f/wav2vec-english-speech-emotion-recognition: the mean of the frames' logits."""
    head = layers("lm_head", outputs=7)
    folder = rename(save_hub(tmp_path, names=EIGHT[:1] + EIGHT[2:]), without_head, head)
    edit(folder, architectures=["Wav2Vec2ForCTC"], vocab_size=7)
    model, samples = HubModel(str(folder)), 0.1 * torch.randn(1, 8_000)
    with torch.inference_mode():
        logits = (states(model, samples) @ head["lm_head.weight"].T + head["lm_head.bias"]).mean(dim=1)
        torch.testing.assert_close(model(samples), logits.softmax(-1))
    edit(
        folder, id2label={"0": "angry", "1": "happy"}, label2id={"angry": 0, "happy": 1}
    )  # of words, not emotions
    with pytest.raises(MifuseError, match="no trained head"):
        HubModel(str(folder))


def test_whisper(tmp_path: Path) -> None:
    """firdhokk's: Whisper's encoder with the head of transformers, 30 s whatever the clip is."""
    size = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    config = transformers.WhisperConfig(
        **size, num_mel_bins=8, classifier_proj_size=8, id2label=dict(enumerate(EIGHT)), decoder_layers=1
    )
    transformers.WhisperForAudioClassification(config).save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor(feature_size=8).save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}")
    assert model.labels == ("angry", "happy", "neutral", "sad")
    assert model(torch.zeros(1, 8_000)).sum().item() == pytest.approx(1)


def refused(folder: Path, labels: tuple[str, ...] | None = None) -> str:
    with pytest.raises(MifuseError) as caught:
        load_model(f"hf:{folder}", labels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        # 3loi/SER-Odyssey-Baseline-WavLM-Categorical
        (
            {
                "model_type": "ser",
                "architectures": ["SERModel"],
                "auto_map": {
                    "AutoConfig": "pipeline_utils.SERConfig",
                    "AutoModelForAudioClassification": "pipeline_utils.SERModel",
                },
                "ssl_type": "microsoft/wavlm-large",
                "mean": 0.0,
                "std": 0.1,
            },
            "the kind ser needs code that comes with it (pipeline_utils): mifuse runs no code",
        ),
        # tiantiaf/wavlm-large-categorical-emotion
        (
            {"model_type": None, "pretrain_model": "wavlm_large", "finetune_method": "lora"},
            "its config.json has no model_type: it needs code of its makers: mifuse runs no code",
        ),
        # speechbrain/emotion-recognition-wav2vec2-IEMOCAP
        (
            {"model_type": None, "speechbrain_interface": "CustomEncoderWav2vec2Classifier"},
            "it is in SpeechBrain's format, whose hyperparams.yaml is code",
        ),
        ({"model_type": "bert"}, "a model of the kind bert is no classifier of audio"),
        ({"model_type": "vit"}, "a model of the kind vit is no classifier of audio"),
    ],
)
def test_refused_by_its_config(tmp_path: Path, fields: dict[str, object], reason: str) -> None:
    said = refused(edit(save_hub(tmp_path), **fields))
    assert said.startswith(f"hf:{tmp_path} cannot be loaded as an audio classifier: {reason}")


def test_refused_without_config_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "hyperparams.yaml").write_text(
        "encoder: !new:speechbrain.lobes.models.huggingface.Wav2Vec2\n"
    )
    assert "it is in SpeechBrain's format" in refused(tmp_path)


def test_refused_without_a_head(tmp_path: Path) -> None:
    assert "has no trained head (classifier.bias is missing" in refused(
        rename(save_hub(tmp_path), without_head)
    )


def test_refused_with_an_encoder_under_other_names(tmp_path: Path) -> None:
    """It would be random, and nobody would notice."""
    folder = rename(save_hub(tmp_path), lambda key: key.replace("wav2vec2.", "backbone."))
    said = refused(folder)
    assert "weights of its encoder are missing (wav2vec2.encoder." in said
    assert "and others are there (backbone." in said
    with pytest.raises(MifuseError, match="weights of its encoder are missing"):
        HubClassifier(str(folder), dropout=0.0)


def test_refused_with_numbers_for_names(tmp_path: Path) -> None:
    names = tuple(f"LABEL_{i}" for i in range(4))
    assert "none of them is angry, happy, neutral, sad; set id2label" in refused(
        save_hub(tmp_path, names=names)
    )


@pytest.mark.parametrize("shards", [1, 2])
def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path: Path, shards: int) -> None:
    folder = save_hub(tmp_path / "hub")
    expected = load_model(f"hf:{folder}")(torch.ones(1, 8_000))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for shard in range(shards):
        part = dict(list(weights.items())[shard::shards])
        name = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        torch.save(part, folder / name)
    said = refused(folder)
    assert "has its weights in a pickle alone (pytorch_model.bin), which could run code" in said
    command = shlex.split(said.partition(f"in {folder}: ")[2])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], cwd=folder, check=True)
    torch.testing.assert_close(load_model(f"hf:{folder}")(torch.ones(1, 8_000)), expected)


@pytest.mark.skipif(not os.environ.get("MIFUSE_ENCODER"), reason="MIFUSE_ENCODER names no real checkpoint")
def test_a_real_encoder_has_no_head() -> None:
    assert "no trained head" in refused(Path(os.environ["MIFUSE_ENCODER"]))
