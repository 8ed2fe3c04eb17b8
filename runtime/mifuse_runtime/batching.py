"""What is due at the same time, of many clips or streams, in as few runs of the graph as possible."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mifuse_runtime.audio import Floats
from mifuse_runtime.decision import Prediction, Shares

if TYPE_CHECKING:
    from mifuse_runtime.speaker import Speaker

BATCH_SECONDS = 100.0  # audio in one run of the graph: bounds the memory of many clips or streams

# What the graph takes, (batch, …) -> answers (batch, C + V), an embedding (batch, D) behind them where it is.
Run = Callable[[Floats], Floats]
Steps = Generator[Floats, Floats, list[Prediction]]  # yields what the graph takes, wants its answer


def answer_of(
    row: Floats, size: int, taken: Floats, speaker: Speaker | None, *, learn: bool = True
) -> Shares:
    """The answer (C + V,) to what the graph has taken, from a row that may have an embedding behind it.

    Args:
        size: C + V.
        speaker: who speaks; it may answer otherwise, and learns from the embedding.
    """
    answer = row[:size]
    return speaker.answer(answer, row[size:], taken, learn) if speaker else answer.astype(np.float64)


def answers(inputs: Sequence[Floats], run: Run, rate: float) -> list[Floats]:
    """The graph's answer to each input; those of one shape share a run.

    `rate`: samples or frames a second, whichever the graph takes.
    """
    due: dict[int, list[int]] = defaultdict(list)
    for number, taken in enumerate(inputs):
        due[len(taken)].append(number)
    found: dict[int, Floats] = {}
    for length, numbers in due.items():
        rows = max(1, int(BATCH_SECONDS * rate) // length)
        for start in range(0, len(numbers), rows):
            some = numbers[start : start + rows]
            batch = np.stack([inputs[i] for i in some]) if len(some) > 1 else inputs[some[0]][None]
            found |= zip(some, run(batch), strict=True)
    return [found[i] for i in range(len(inputs))]


def together(feeds: Sequence[Steps], run: Run, rate: float) -> list[list[Prediction]]:
    """What each of the feeds finds; what they want of the graph at the same time shares a run."""
    found: list[list[Prediction]] = [[] for _ in feeds]
    replies: dict[int, Floats | None] = dict.fromkeys(range(len(feeds)))
    while replies:
        due: dict[int, Floats] = {}
        for number, reply in replies.items():
            try:
                due[number] = next(feeds[number]) if reply is None else feeds[number].send(reply)
            except StopIteration as end:  # noqa: PERF203, how a generator returns
                found[number] = end.value
        replies = dict(zip(due, answers(list(due.values()), run, rate), strict=True))
    return found
