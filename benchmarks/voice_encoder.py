"""The weights of the speaker encoder, from Resemblyzer's wheel (PyPI, Apache-2.0) to safetensors, once.

    pip download --no-deps resemblyzer==0.1.4
    python -m benchmarks.voice_encoder Resemblyzer-0.1.4-py3-none-any.whl

Writes mifuse/voices/embedding.safetensors: float16, 2.8 MB. The wheel's pickle is read here and nowhere else,
by torch's reader of tensors, which executes nothing.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from mifuse.voices.embedding import WEIGHTS

CREDIT = {
    "source": "Resemblyzer 0.1.4, Resemble AI and Corentin Jemine, https://github.com/resemble-ai/Resemblyzer",
    "licence": "Apache-2.0",
    "changes": "converted to float16; the optimiser's state and the two scalars of the loss left out",
}


def convert(wheel: Path, out: Path) -> None:
    """Write the encoder's weights, float16, with their source and licence."""
    with zipfile.ZipFile(wheel) as archive:
        stored = io.BytesIO(archive.read("resemblyzer/pretrained.pt"))
    state = torch.load(stored, map_location="cpu", weights_only=True)["model_state"]
    kept = {name: value.half() for name, value in state.items() if not name.startswith("similarity")}
    save_file(kept, out, CREDIT)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), WEIGHTS)
