"""What models take for 30 s of audio, and the ceilings that the runtime holds bundles to.

    python -m benchmarks.ceilings [--whisper FOLDER]

Students of all sizes, WavLM-base with random weights and Whisper base's encoder; a minute and 3 GB.
FOLDER holds the config.json of a Whisper encoder. Exits with 1 where less than tenfold is left.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from mifuse.clips.labels import LABELS
from mifuse.models.hub import HubClassifier
from mifuse.models.student import Student
from mifuse_export.onnx import OPSET, frozen, write_onnx
from mifuse_runtime import graph

LEAST = 10.0  # times what a model takes


class Encoder(torch.nn.Module):
    """Whisper's encoder: mel spectra of 30 s in, states out."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        config = transformers.AutoConfig.from_pretrained(folder)
        config._attn_implementation = "mifuse"  # of mifuse.models.attention: no masks that mask nothing
        encoder: Any = transformers.models.whisper.modeling_whisper.WhisperEncoder(config)
        self.encoder = encoder.eval()

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Mel (1, bins, 3000) -> states (1, 1500, width)."""
        states: torch.Tensor = self.encoder(mel).last_hidden_state
        return states


def models(folder: Path, whisper: str | None) -> Iterator[Path]:
    """Their ONNX files, each written when it is its turn."""
    for size in ("xs", "s", "m", "w99"):
        yield write(Student(size=size, prosody=True), folder / f"student-{size}.onnx")
    config = transformers.WavLMConfig(id2label=dict(enumerate(LABELS)))
    transformers.WavLMForSequenceClassification(config).save_pretrained(folder / "wavlm")
    extractor: Any = transformers.Wav2Vec2FeatureExtractor
    extractor(return_attention_mask=True).save_pretrained(folder / "wavlm")
    yield write(HubClassifier(str(folder / "wavlm")), folder / "wavlm-base.onnx")
    if whisper:
        path = folder / "whisper.onnx"
        example = (torch.zeros(1, 80, 3000),)
        program = torch.onnx.export(
            Encoder(whisper), example, dynamo=True, opset_version=OPSET, verbose=False
        )
        assert program is not None
        program.save(path)
        yield path


def write(model: torch.nn.Module, path: Path) -> Path:
    """As a bundle has it."""
    write_onnx(frozen(model), path, labels=LABELS, sample_rate=16_000)
    return path


def main() -> None:
    """Print a line a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whisper", metavar="FOLDER")
    options = parser.parse_args()
    print("| model | bytes | operations | ceiling | times | numbers held | ceiling | times |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    least = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        for path in models(Path(folder), options.whisper):
            network = graph.onnx_network(path.read_bytes())
            taken, most = graph.cost(network, graph.usual(network)), graph.ceilings(network)
            work, memory = most.work / taken.work, most.memory / taken.memory
            least = min(least, work, memory)
            print(
                f"| {path.stem} | {network.size:,} | {taken.work:.1e} | {most.work:.1e} | {work:.0f} "
                f"| {taken.memory:.1e} | {most.memory:.1e} | {memory:.0f} |",
                flush=True,
            )
    sys.exit(least < LEAST)


if __name__ == "__main__":
    main()
