"""How a stream decides and what its body graph is given: sections `stream` and `frontend` of bundle.json."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

NO_SPEECH = "no speech"  # label and state while nobody speaks
NOT_SURE = "not sure"  # state while no emotion is likely enough
SPOKEN = "speech"  # label and state of speech where a model says dimensions alone


@dataclass(frozen=True)
class Settings:
    """Thresholds of the voice-activity gate and the decisions; `mifuse export` measures some on the target.

    What the voice defaults let pass, of speech and of what is none: `python -m benchmarks.voice`.
    """

    abstain: float = 0.0  # confidence below which the state is "not sure"; 0 is off
    smoothing: float = 0.5  # seconds, time constant of the smoothed scores; 0 is off
    margin: float = 0.1  # by how much another emotion must lead to become the state; 0 is off
    speech: float = 0.1  # share of a window's frames that must be speech; 0 is off
    level: float = -60.0  # dBFS: quieter frames are silence; -200 is off
    voice: float = 0.5  # probability of speech that a frame must have; 0 is off
    flatness: float = 0.42  # of bundles from before the gate had a network; not used


@dataclass(frozen=True)
class FrontEnd:
    """The numbers behind mel power: what a bundle's body graphs are given, and its models compute themselves.

    Frames of two hops under a Hann window, one for each hop that begins in the clip and one more, since half
    a frame of silence is put on each side; filters that are triangles on the HTK mel scale.
    The defaults are what holds for bundles that do not say.
    """

    hop: int = 256  # samples
    mels: int = 64
    low: float = 60.0  # Hz
    high: float = 7600.0  # Hz
    folded: bool = False  # a frame's halves are added before the DFT, which leaves every second bin
    lowest: int = 0  # bins of the whole DFT whose power comes behind the mel power, the even ones first

    @property
    def columns(self) -> int:
        """Values of a frame."""
        return self.mels + self.lowest


_RANGES = {"smoothing": (0, 60), "level": (-200, 0), "hop": (8, 4096), "mels": (1, 1024), "lowest": (0, 1024)}
_RANGES |= {"low": (0, 192_000), "high": (1, 192_000), "folded": (False, True)}


def problems(section: str, values: Settings | FrontEnd) -> Iterator[str]:
    """What is wrong with the values."""
    for field in fields(values):
        low, high = _RANGES.get(field.name, (0, 1))
        value = getattr(values, field.name)
        kinds = (int, float) if isinstance(field.default, float) else (type(field.default),)
        if type(value) not in kinds or not low <= value <= high:
            yield f"{section}.{field.name} is {value!r}, {low} to {high} expected"
