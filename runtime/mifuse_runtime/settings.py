"""How a stream decides: the optional section `stream` of bundle.json."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

NO_SPEECH = "no speech"  # label and state while nobody speaks
NOT_SURE = "not sure"  # state while no emotion is likely enough


@dataclass(frozen=True)
class Settings:
    """Thresholds of the voice-activity gate and the decisions; `mifuse export` measures some on the target.

    The voice defaults let 1 % of the frames of white, pink and brown noise pass, and 92 to 96 % of the
    frames within 25 dB of the loudest one in three corpora of acted speech.
    """

    abstain: float = 0.0  # confidence below which the state is "not sure"; 0 is off
    smoothing: float = 0.5  # seconds, time constant of the smoothed scores; 0 is off
    margin: float = 0.1  # by how much another emotion must lead to become the state; 0 is off
    speech: float = 0.1  # share of a window's frames that must be speech; 0 is off
    level: float = -60.0  # dBFS: quieter frames are silence; -200 is off
    flatness: float = 0.42  # spectral flatness, mean of octaves: flatter frames are noise; 1 is off

    def problems(self) -> Iterator[str]:
        """What is wrong with the values."""
        for field in fields(self):
            low, high = (
                (0, 60) if field.name == "smoothing" else (-200, 0) if field.name == "level" else (0, 1)
            )
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                yield f"stream.{field.name} is {value!r}, {low} to {high} expected"
