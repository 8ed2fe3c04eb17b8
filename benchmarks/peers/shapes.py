"""Encoders that others put a head on, as ONNX files: released shapes, random weights but for Whisper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LAYERS = {"distilhubert": 2}  # of the transformer; 12 in the base models


def shape(name: str, below: Path, whisper: Path | None) -> Path | None:
    """The ONNX file of an encoder, written once; None: Whisper's weights are not here."""
    file = below / f"{name}.onnx"
    if file.is_file():
        return file
    if name == "whisper" and (whisper is None or not (whisper / "model.safetensors").is_file()):
        return None
    import torch

    torch.manual_seed(0)
    if name in ("wav2small", "mobilenetv4"):
        from benchmarks.peers.nets import small

        model, inputs, axes = small(name)
    else:
        model, inputs, axes = _whisper(whisper) if name == "whisper" else _samples(name)
    below.mkdir(parents=True, exist_ok=True)
    part = below / f".{name}.part.onnx"
    torch.onnx.export(
        model.eval(), inputs, part, input_names=list(axes), output_names=["states"], opset_version=17,
        dynamic_axes={key: axis for key, axis in axes.items() if axis}, dynamo=False,
    )  # fmt: skip
    part.replace(file)
    return file


def _samples(name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

    kinds: dict[str, tuple[Any, Any]] = {
        "distilhubert": (HubertConfig, HubertModel),
        "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
        "wavlm": (WavLMConfig, WavLMModel),
    }
    config, model = kinds[name]
    made = model(config(num_hidden_layers=LAYERS.get(name, 12), attn_implementation="eager"))
    return _Last(made), (torch.zeros(1, 48_000),), {"samples": {1: "n"}}


def _whisper(folder: Path | None) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    import torch
    from safetensors.torch import load_file
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    assert folder is not None
    config = WhisperConfig.from_pretrained(folder, attn_implementation="eager")
    encoder = WhisperEncoder(config)
    weights = load_file(folder / "model.safetensors")
    named = {key.split("encoder.", 1)[-1]: value.float() for key, value in weights.items()}
    encoder.load_state_dict(named, strict=True)
    return _Last(encoder), (torch.zeros(1, config.num_mel_bins, 3000),), {"mel": None}


def _Last(model: Any) -> Any:  # noqa: N802, it makes a module; torch is loaded by then
    import torch

    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(inputs).last_hidden_state
            return found

    return Last()
