"""Teachers that are classifiers: an open model that says probabilities of emotions, asked on this machine.

Such a model says the same each time, so draws differ by their input: draw 0 is of the clip as it is, each
other one of a part of it, a little faster or slower, louder or softer, with some noise. Draw k changes all
clips alike. What holds in spite of it is what the model is sure of.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.labels import Naming, folded
from mifuse.clips.manifest import Clip
from mifuse.config import require
from mifuse.errors import MifuseError
from mifuse.teachers.base import Reply, Said, Source
from mifuse_runtime.dimensions import Ranges, problems

Samples = NDArray[np.float32]

VERSION = 1  # one more whenever copies are made otherwise: draws of other copies are not mixed
PART = 0.9  # of a clip that a copy holds
SPEED = 0.05  # most change of speed and pitch, ± share
GAIN = 6.0  # most change of level, ± dB
SNR = (15.0, 35.0)  # dB of the voice over the noise that is added
NO_EMOTIONS = ("other", "others", "unknown", "<unk>", "unk")  # what classifiers call the rest
UNNAMED = re.compile(r"label[ _]?\d+")


@dataclass(frozen=True)
class ClassifierConfig:
    """How a classifier is asked."""

    model: str  # name on its hub, or a folder
    max_seconds: float = 30.0  # s; longer clips are cut to their first seconds
    seed: int = 0  # of the copies

    def __post_init__(self) -> None:
        require(self, max_seconds=(0.1, math.inf))


class Listener(Protocol):
    """A classifier with labels of its own."""

    @property
    def words(self) -> Sequence[str]:
        """All that it can say."""
        ...

    @property
    def digest(self) -> str:
        """Names its weights."""
        ...

    @property
    def says_numbers(self) -> bool:
        """Whether it says numbers from 0 to 1, such as arousal, and no emotions."""
        ...

    def __call__(self, samples: Samples) -> list[Mapping[str, float]]:
        """Word -> probability, or number, for each of (batch, n) samples at 16 kHz; empty: no emotion."""
        ...


class ClassifierTeacher:
    """Asks a classifier about copies of each clip.

    Args:
        kind: `hf` or `funasr`.
        listen: opens the model.
        naming: of its words; with a set, all labels of which it must have.
        ranges: that its numbers are said in, and which; empty: all of them, from 0 to 1.

    Raises:
        MifuseError: there is no such model, or its words are no emotions or not those of the set.
    """

    default_draws = per_request = 4  # in one pass: copies are of one length
    concurrency = 1  # cores or GPU are busy with one
    deadline = math.inf

    def __init__(
        self,
        kind: str,
        config: ClassifierConfig,
        listen: Callable[[str], Listener],
        cache: AudioCache | None = None,
        naming: Naming | None = None,
        *,
        ranges: Ranges | None = None,
    ) -> None:
        self.config, self._cache = config, cache or AudioCache()
        self._listener, who = listen(config.model), f"{kind}:{config.model}"
        numbers = self._listener.says_numbers
        self.labels = {} if numbers else _named(who, self._listener.words, naming or Naming())
        """Its word -> label; empty where it is no emotion, or to be left out."""
        self.ranges = _ranges(who, self._listener.words if numbers else (), ranges or {})
        """Of its numbers; empty where it says emotions."""
        shape = [VERSION, PART, SPEED, GAIN, SNR, config.seed, config.max_seconds, self._listener.digest]
        text = json.dumps([*shape, sorted(self.labels.items()), *([dict(self.ranges)] if numbers else [])])
        self.source = Source(kind, config.model, hashlib.sha256(text.encode()).hexdigest())

    async def ask(self, clip: Clip, draws: Sequence[int], attempt: int, key: str) -> Reply:
        """What it says of a copy for each draw; see `Teacher.ask`."""
        return await asyncio.to_thread(self._classified, clip, draws, attempt)

    def _classified(self, clip: Clip, draws: Sequence[int], attempt: int) -> Reply:
        samples = self._cache.samples(clip)[: int(self.config.max_seconds * SAMPLE_RATE)]
        copies = [copy_of(samples, draw, self.config.seed, attempt) for draw in draws]
        whole = [copy for copy in copies if len(copy) == len(samples)]
        parts = [copy for copy in copies if len(copy) < len(samples)]
        found = {len(group[0]): iter(self._listener(np.stack(group))) for group in (whole, parts) if group}
        return Reply([self._said(next(found[len(copy)])) for copy in copies])

    def _said(self, answer: Mapping[str, float]) -> Said:
        if self.ranges:
            unit = {word.strip().lower(): share for word, share in answer.items()}
            return Said(
                probs={},
                dimensions={n: low + unit[n] * (high - low) for n, (low, high) in self.ranges.items()},
            )
        probs: dict[str, float] = {}
        for word, share in answer.items():
            if label := self.labels.get(word):
                probs[label] = probs.get(label, 0.0) + float(share)
        total = sum(probs.values())
        if not total > 0:
            return Said(problem=f"it says {', '.join(answer) or 'nothing'}, no emotion")
        return Said(probs={label: share / total for label, share in probs.items()})

    def most_usage(self, clip: Clip, draws: int) -> dict[str, int]:
        """Nothing is billed."""
        return {}

    async def close(self) -> None:
        """There is nothing to let go of."""


class HubListener:
    """A classifier of `transformers`, on the GPU when there is one."""

    def __init__(self, name: str) -> None:
        from mifuse.models.hub import HubModel

        model = HubModel(name)
        self.words, self.says_numbers = model.words, model.says_numbers
        self.digest = digest_of(model.model)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.inference_mode()
    def __call__(self, samples: Samples) -> list[Mapping[str, float]]:
        """See `Listener`."""
        rows = self._model(torch.from_numpy(samples)).cpu().tolist()
        return [dict(zip(self.words, row, strict=True)) for row in rows]


def copy_of(samples: Samples, draw: int, seed: int = 0, attempt: int = 0) -> Samples:
    """The input of a draw for a clip (n,): itself for draw 0, else 0.9 n samples of it, changed a little.

    >>> clip = np.sin(np.arange(16_000, dtype=np.float32))
    >>> copy_of(clip, 0) is clip, copy_of(clip, 1).shape, np.array_equal(copy_of(clip, 1), copy_of(clip, 1))
    (True, (14400,), True)
    """
    if draw == 0 and attempt == 0:
        return samples
    import soxr

    rng = np.random.default_rng([seed, draw, attempt])
    size = max(1, int(PART * len(samples)))
    speed, gain, snr = 1 + SPEED * rng.uniform(-1, 1), GAIN * rng.uniform(-1, 1), rng.uniform(*SNR)
    taken = min(len(samples), int(size * speed))
    start = int(rng.uniform() * (len(samples) - taken))
    part = soxr.resample(samples[start : start + taken], SAMPLE_RATE * speed, SAMPLE_RATE)
    part = np.pad(part[:size], (0, max(0, size - len(part))))  # the filter rounds lengths
    level = np.sqrt(np.mean(part.astype(np.float64) ** 2))
    noisy = part + level * 10 ** (-snr / 20) * rng.standard_normal(size)
    return np.asarray(noisy * 10 ** (gain / 20), dtype=np.float32)


def digest_of(model: torch.nn.Module) -> str:
    """Names weights: other ones are another source of draws."""
    digest = hashlib.sha256()
    for name, weights in sorted(model.state_dict().items()):
        digest.update(
            name.encode() + weights.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def _ranges(who: str, words: Sequence[str], wanted: Ranges) -> Ranges:
    """The numbers that are taken of a classifier, each with its range."""
    names = [word.strip().lower() for word in words]
    if missing := [name for name in wanted if name not in names]:
        says = f"the numbers {', '.join(names)}" if names else "emotions and no numbers"
        raise MifuseError(f"{who} says {says}, and not {', '.join(missing)}: leave it out of --targets")
    found = wanted or dict.fromkeys(names, (0.0, 1.0))
    if problem := next(problems(found), None):
        raise MifuseError(f"{who}: {problem}")
    return found


def _named(who: str, words: Sequence[str], naming: Naming) -> dict[str, str]:
    """The label of each word of a model; of `生气/angry` what stands last counts."""
    said = {word: word.split("/")[-1] for word in words}
    unnamed = [
        word for word in said.values() if UNNAMED.fullmatch(folded(word)) and not _renamed(word, naming)
    ]
    if unnamed:
        raise MifuseError(
            f"{who} does not name its labels ({', '.join(words)}): say what they are with "
            f"--map {unnamed[0]}=angry,…, from the model's card"
        )
    any_set = naming.over(None)
    labels = {
        word: "" if folded(name) in NO_EMOTIONS and not _renamed(name, naming) else any_set.label(name) or ""
        for word, name in said.items()
    }
    found = {label for label in labels.values() if label}
    missing = [label for label in naming.labels or () if label not in {naming.label(one) for one in found}]
    if missing or len(found) < 2:
        what = f"none of them is {', '.join(missing)}" if missing else "two emotions at least are needed"
        raise MifuseError(f"{who} has the labels {', '.join(words)}: {what}; rename with --map OLD=NEW")
    return labels


def _renamed(word: str, naming: Naming) -> bool:
    return folded(word) in naming.renamed
