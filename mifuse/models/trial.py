"""What a checkpoint of the hub is good for, and how long it takes here, measured on a few clips of noise."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import numpy as np
import torch

from mifuse.clips.labels import LABELS
from mifuse.errors import MifuseError
from mifuse.models.frontend import SAMPLE_RATE
from mifuse.models.hub import HubClassifier, HubModel

LENGTHS = (2.0, 4.0, 8.0)  # s, of the clips that are tried


@dataclass(frozen=True)
class Use:
    """One way of using a checkpoint."""

    missing: str = ""
    """Why it cannot be used so; empty if it can."""
    kind: str = ""
    """As `transformers` calls it: `wavlm`, `whisper`, …"""
    parameters: int = 0
    words: tuple[str, ...] = ()
    """Its labels."""
    layers: int = 0
    width: int = 0
    seconds: tuple[float, ...] = ()
    """Of one pass for clips of `LENGTHS`."""

    @property
    def kept(self) -> int:
        """Bytes of the states of a clip in the cache: mean and deviation of each, two bytes a number."""
        return 2 * 2 * self.layers * self.width

    def hours(self, clips: int, length: float) -> float:
        """That `clips` of `length` seconds take here, by a line through the lengths that were tried."""
        slope, offset = np.polyfit(LENGTHS, self.seconds, 1)
        return clips * max(float(slope) * length + float(offset), min(self.seconds) / 10) / 3600


def tried(name: str) -> tuple[Use, Use]:
    """A checkpoint as frozen encoder under a head of ours, and as the classifier that it is."""
    return _tried(name, 0.0), _tried(name, None)


def _tried(name: str, dropout: float | None) -> Use:
    try:
        model = HubModel(name) if dropout is None else HubClassifier(name, LABELS, dropout)
    except MifuseError as error:
        return Use(str(error))
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    times: list[float] = []
    states: list[torch.Tensor] = []
    for length in LENGTHS:
        took, states = _pass(model, length)
        times.append(took)
    found = Use(
        kind=model.model.config.model_type,
        parameters=sum(weights.numel() for weights in model.parameters()),
        words=tuple(model.words),
        layers=len(states),
        width=states[-1].shape[-1],
        seconds=tuple(times),
    )
    del model, states
    gc.collect()  # a large one twice would not fit
    return found


@torch.inference_mode()
def _pass(model: HubModel, length: float) -> tuple[float, list[torch.Tensor]]:
    """Seconds of the faster of two passes, and the states of all layers."""
    noise = np.random.default_rng(0).standard_normal((1, int(length * SAMPLE_RATE)), dtype=np.float32)
    times: list[float] = []
    states: list[torch.Tensor] = []
    for _ in range(2):
        started = time.perf_counter()
        states = model.states(torch.from_numpy(0.1 * noise))
        times.append(time.perf_counter() - started)
    return min(times), states
