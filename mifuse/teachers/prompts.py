"""The questions that teachers are asked: equivalent prompts that differ in wording and in the labels' order.

Draws must be able to disagree, also where a model has no temperature. So each draw is asked by a prompt of
its own: among draws 0 to C-1, C to 2C-1, … each of the C labels stands once in each place, and the wording
changes too. Nothing but seed, draw and attempt decides a prompt; clips do not know of each other.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mifuse.clips.labels import LABELS, Naming
from mifuse.errors import MifuseError

LONGEST = 200  # characters of a description
VERSION = 1  # one more whenever a word below changes: draws of other questions are not mixed

# What the model is given -> who it is and what counts.
SYSTEM = {
    "audio": (
        "You judge which emotion a speaker expresses. Listen to how things are said: pitch and its movement, "
        "loudness, tempo, pauses, voice quality. What is said counts little; words can contradict the voice."
    ),
    "evidence": (
        "You judge which emotion a speaker expresses, from a picture and a table that describe a recording "
        "of the voice. The picture is a log-mel spectrogram with the F0 contour (white) and the energy "
        "contour (cyan) over time in seconds. The table gives prosodic measurements and, as z-scores, how "
        "far each is from the other recordings of the collection and, where known, of the same speaker. "
        "A z-score of the speaker says more than one of the collection, and both say more than the raw "
        "value: voices differ. High F0 with a wide range, high energy and a flat spectral tilt mean arousal; "
        "low F0, low energy, slow speech and a steep tilt mean the lack of it. Anger and happiness are both "
        "aroused: anger has the harder, more pressed voice, happiness the more melodic one. Use a transcript "
        "only where the voice leaves doubt."
    ),
}
# The same where numbers alone are asked for.
ALONE = {
    "audio": (
        "You judge how a speaker sounds. Listen to how things are said: pitch and its movement, loudness, "
        "tempo, pauses, voice quality. What is said counts little; words can contradict the voice."
    ),
    "evidence": SYSTEM["evidence"].replace("which emotion a speaker expresses", "how a speaker sounds", 1),
}
RATINGS = (
    "How does the person in this recording sound?",
    "Judge this voice.",
    "Rate how the speaker sounds in this recording.",
    "Describe this voice by numbers.",
    "Say how this speech sample sounds.",
)
NUMBERS = (
    "Answer with one JSON object and nothing else: {example}, with your own numbers: {dimensions}. "
    "Use the whole of each range."
)
TASKS = (
    "Which emotion does the speaker express in this recording?",
    "Judge the emotion in this voice.",
    "How does the person in this recording feel, to judge by the voice?",
    "Classify the emotional tone of this utterance.",
    "Decide what emotion is heard in this speech sample.",
)
SCALES = (
    "Give the probability of each of these emotions: {labels}.",
    "The candidates are {labels}. Say how probable each one is.",
    "Spread a probability of 1 over {labels}.",
    "For each of {labels}, state your degree of belief between 0 and 1.",
)
FORMAT = (
    "Be honest about doubt. Answer with one JSON object and nothing else: {example}, with your own numbers "
    "from 0 to 1 that sum to 1."
)
# What their ends mean; of others the number alone says it.
ENDS = {
    "arousal": ("very calm", "very excited"),
    "dominance": ("very weak", "very strong"),
    "valence": ("very unpleasant", "very pleasant"),
}
RATE = "Put into the same object, as numbers of their own that are no probabilities: {dimensions}."
MEANING = "By {label} is meant: {text}."
WORD = "Answer with exactly one word, one of: {labels}."


@dataclass(frozen=True)
class Prompt:
    """One question."""

    system: str
    text: str
    labels: tuple[str, ...]
    """In the order of this question."""
    dimensions: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return {
            "type": "object",
            "properties": {name: {"type": "number"} for name in (*self.labels, *self.dimensions)},
            "required": [*self.labels, *self.dimensions],
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class Prompts:
    """All questions of one teacher.

    >>> prompts = Prompts(("angry", "happy", "sad"))
    >>> len({prompts.get(draw).labels[0] for draw in range(3)})
    3
    >>> prompts.get(4) == prompts.get(4) != prompts.get(4, attempt=1)
    True
    """

    labels: tuple[str, ...] = LABELS
    """Empty: numbers alone are asked for."""
    kind: str = "audio"
    """`audio`, or `evidence` for models that only see and read."""
    one_word: bool = False
    """Ask for a word, whose probabilities are read from the tokens, instead of for numbers."""
    seed: int = 0
    descriptions: tuple[tuple[str, str], ...] = ()
    """Label and what it means, in one line."""
    dimensions: tuple[tuple[str, tuple[float, float]], ...] = ()
    """Numbers to ask for beside the probabilities, each with its range."""

    @functools.lru_cache(4096)  # noqa: B019 - a handful of instances, and what it keeps is small
    def get(self, number: int, attempt: int = 0) -> Prompt:
        """Question `number`; after `attempt` answers that were invalid, the same in other words."""
        if not self.labels:
            return self._alone(number, attempt)
        count = len(self.labels)
        block, turn = divmod(number, count)
        rng = np.random.default_rng([self.seed, attempt, block])
        order = np.roll(rng.permutation(count), turn)
        labels = tuple(self.labels[i] for i in order)
        # Steps that share no factor with the number of wordings: every pair comes up before one repeats.
        start = int(np.random.default_rng([self.seed, attempt]).integers(1 << 16)) + number
        task, scale = TASKS[start % len(TASKS)], SCALES[start % len(SCALES)]
        named = ", ".join(labels)
        meanings = [MEANING.format(label=label, text=text.rstrip(".")) for label, text in self.descriptions]
        if self.one_word:
            parts = [task, *meanings, WORD.format(labels=named)]
        else:
            example = "{" + ", ".join(f'"{label}": …' for label in labels) + "}"
            parts = [task, scale.format(labels=named), *meanings, FORMAT.format(example=example)]
            parts += [RATE.format(dimensions=", ".join(self._scales()))] if self.dimensions else []
        text = " ".join(parts)
        return Prompt(SYSTEM[self.kind], text, labels, tuple(name for name, _ in self.dimensions))

    def _alone(self, number: int, attempt: int) -> Prompt:
        """Question `number` about numbers alone: they take turns in being first."""
        names = [name for name, _ in self.dimensions]
        first = int(np.random.default_rng([self.seed, attempt]).integers(1 << 16)) + number
        example = "{" + ", ".join(f'"{name}": …' for name in np.roll(names, first)) + "}"
        scales = ", ".join(np.roll(list(self._scales()), first))
        asked = NUMBERS.format(example=example, dimensions=scales)
        return Prompt(ALONE[self.kind], f"{RATINGS[first % len(RATINGS)]} {asked}", (), tuple(names))

    def _scales(self) -> Iterator[str]:
        for name, (low, high) in self.dimensions:
            ends = [f" ({word})" for word in ENDS.get(name, ())] or ["", ""]
            yield f'"{name}", from {low:g}{ends[0]} to {high:g}{ends[1]}'

    def hash(self, settings: Mapping[str, Any]) -> str:
        """Hex SHA-256 of all that shapes the questions; `settings` are those of the request."""
        shape = [
            VERSION,
            SYSTEM[self.kind],
            TASKS,
            SCALES,
            FORMAT,
            WORD,
            self.labels,
            self.one_word,
            self.seed,
            # Without them the hash is what it was before there were any: draws are not bought twice.
            *([MEANING, self.descriptions] if self.descriptions else []),
            *([RATE, ENDS, self.dimensions] if self.dimensions else []),
            *([] if self.labels else [ALONE[self.kind], RATINGS, NUMBERS]),
        ]
        return hashlib.sha256(json.dumps([shape, settings], sort_keys=True).encode()).hexdigest()


def describe(texts: Sequence[str], labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Descriptions from `label=what it means`.

    Raises:
        MifuseError: another form, a label that is not of the set, or one twice.
    """
    naming, found = Naming(tuple(labels)), {}
    for text in texts:
        word, _, meaning = text.partition("=")
        label, line = naming.label(word), " ".join(meaning.split())
        if not label or not line or label in found or not line.isprintable() or len(line) > LONGEST:
            raise MifuseError(
                f"--describe {text[:60]!r}: write LABEL=TEXT, one line of up to {LONGEST} characters, "
                f"once for each label; the labels are {', '.join(labels)}"
            )
        found[label] = line
    return tuple(sorted(found.items()))


def with_transcript(text: str, transcript: str | None) -> str:
    """The question, with what is said where the manifest's `transcript` column has it."""
    return f"{text}\n\nTranscript: {json.dumps(transcript, ensure_ascii=False)}" if transcript else text
