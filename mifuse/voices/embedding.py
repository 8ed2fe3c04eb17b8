"""Embeddings of voices: clips of one speaker lie close together, whatever is said and in which mood.

Three LSTM layers read 40 mel bands, 1.6 s at a time; they were trained to tell thousands of speakers apart.
The weights are Resemblyzer's (Apache-2.0, `python -m benchmarks.voice_encoder`). 50 ms of one core for 3 s.

Source: Wan et al., "Generalized end-to-end loss for speaker verification" (ICASSP 2018).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.keys import key
from mifuse.clips.manifest import Clip
from mifuse.clips.shards import Joined, table

Array = NDArray[np.float64]

WEIGHTS = Path(__file__).with_name("embedding.safetensors")
SIZE = 256  # of an embedding, and of the LSTM's layers
LAYERS, MELS = 3, 40
WINDOW, HOP = 400, 160  # samples of a frame of 25 ms, every 10 ms
PART, STEP = 160, 77  # frames that the LSTM reads at a time, and from one part to the next
COVERED = 0.75  # of the last part, at least, is the clip and not silence behind it
LEVEL = 10 ** (-30 / 20)  # effective value to which quieter clips are raised


def voice_embeddings(clips: Sequence[Clip], cache: AudioCache) -> Joined:
    """Embedding of each clip's voice, unit length, (N, 256); kept on disk.

    Raises:
        AudioError: a clip cannot be read.
    """

    def embedded(part: Sequence[Clip]) -> Array:
        return np.stack([embed(cache.samples(clip)) for clip in part])

    return table(clips, cache, "speakers", embeddings_key(), embedded)


def embeddings_key() -> str:
    """Of a table of embeddings."""
    return key(("audio", "trim", "embedding"), [sys.modules[__name__]])


@torch.inference_mode()
def embed(samples: NDArray[np.float32]) -> Array:
    """Embedding of one clip, (n,) at 16 kHz -> (256,) of unit length."""
    sound = torch.from_numpy(np.array(samples, dtype=np.float32))
    sound = sound * max(1.0, LEVEL / max(float(sound.square().mean().sqrt()), 1e-6))
    hann = torch.hann_window(WINDOW)
    spectrum = torch.stft(
        sound, WINDOW, HOP, window=hann, center=True, pad_mode="constant", return_complex=True
    )
    mels = (spectrum.abs() ** 2).T @ _filters()
    starts = list(range(0, max(1, len(mels) - PART + STEP + 1), STEP))
    if len(starts) > 1 and (len(mels) - starts[-1]) / PART < COVERED:
        starts.pop()
    mels = F.pad(mels, (0, 0, 0, max(0, starts[-1] + PART - len(mels))))
    states = _encoder()(torch.stack([mels[start : start + PART] for start in starts]))
    mean = F.normalize(states, dim=1).mean(dim=0)
    return np.asarray(F.normalize(mean, dim=0).double().numpy())


class _Encoder(nn.Module):
    """The layers, by the names that the weights have."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, SIZE, LAYERS, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)

    def forward(self, mels: Tensor) -> Tensor:
        """Mel power (parts, frames, 40) -> (parts, 256)."""
        last: Tensor = self.lstm(mels)[1][0][-1]
        return torch.relu(self.linear(last))


@functools.cache
def _encoder() -> _Encoder:
    encoder = _Encoder()
    encoder.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return encoder.eval()


@functools.cache
def _filters() -> Tensor:
    """Mel filters as in Slaney's Auditory Toolbox, (frequencies, 40)."""
    filters: Tensor = torchaudio.functional.melscale_fbanks(
        WINDOW // 2 + 1, 0.0, SAMPLE_RATE / 2, MELS, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return filters
