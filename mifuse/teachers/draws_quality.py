"""What draws have cost, how many answers were invalid, and, where there are labels, how good they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import Naming
from mifuse.evaluation import labelled_clips, score_clips
from mifuse.fusion.weighting import mutual_information
from mifuse.runs.metrics import Scores
from mifuse.teachers.base import Source
from mifuse.teachers.draws import draws_labels, is_store, load_draws
from mifuse.teachers.store.database import DrawsStore

MANY_INVALID = 0.05  # share of answers; more of them means a prompt or a model that does not fit
GROUPS = 5  # of clips, on the curve


@dataclass(frozen=True)
class Cost:
    """What one source took to get."""

    usd: float = 0.0
    unsettled_usd: float = 0.0
    """The most that requests without an answer can have cost: open now, timed out, or killed."""
    draws: int = 0
    problems: Mapping[str, int] = field(default_factory=dict)
    """What was wrong with invalid answers -> how many."""

    @property
    def invalid(self) -> int:
        """How many answers were no distributions."""
        return sum(self.problems.values())

    def warnings(self) -> list[str]:
        """What should make one look twice."""
        share = self.invalid / max(self.invalid + self.draws, 1)
        if share <= MANY_INVALID:
            return []
        return [f"{share:.0%} of the answers were invalid, most often: {next(iter(self.problems))}"]


def costs(path: Path | str) -> dict[Source, Cost]:
    """By source; nothing for JSONL, which has no prices. Sources with invalid answers alone are here too."""
    if not is_store(path):
        return {}
    with DrawsStore(path, read_only=True) as store:
        spent = store.spent()
        return {
            source: Cost(*spent.get(source, (0.0, 0.0)), len(store.keys(source)), store.problems(source))
            for source in sorted({*spent, *store.sources()})
        }


@dataclass(frozen=True)
class Quality:
    """How the draws of one teacher compare with labels."""

    scores: Scores
    """Of the mean draw."""
    curve: tuple[tuple[float, float], ...]
    """Mean mutual information (nats) and share right (%) of each fifth of the clips, the surest first."""


def quality(
    path: Path | str,
    manifest: Path | str,
    teacher: str | None = None,
    split: str | None = None,
    naming: Naming | None = None,
) -> Quality:
    """Score stored draws against the labels of a manifest. For evaluation only: nothing else may use it.

    Args:
        naming: of both; without a set they are those of the draws.

    Raises:
        MifuseError: no labels, or clips without draws.
    """
    naming = naming or Naming()
    labels = naming.labels or draws_labels(path, teacher, naming)
    clips = labelled_clips(manifest, naming.over(labels), split).clips
    draws = load_draws(path, clips, naming.over(labels), AudioCache(), teacher)
    mean, doubt = draws.mean(axis=0), mutual_information(draws)
    right = mean.argmax(axis=1) == np.array([labels.index(str(clip.label)) for clip in clips])
    parts = [part for part in np.array_split(np.argsort(doubt, kind="stable"), GROUPS) if len(part)]
    curve = tuple((float(doubt[part].mean()), 100 * float(right[part].mean())) for part in parts)
    return Quality(score_clips(clips, mean, labels), curve)
