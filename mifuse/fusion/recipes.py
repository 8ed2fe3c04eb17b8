"""How a student is adapted: every setting with its default, and the recipes that have a name."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mifuse.config import require
from mifuse.fusion.refinement import RefineConfig
from mifuse.models.training import FitConfig

HELD_OUT = 0.5  # optimiser steps of the verdict's second student, of those of the student


def held_out_steps(fit: FitConfig) -> int:
    """Optimiser steps of the second student, which never gets the clips of some speakers."""
    return max(1, round(HELD_OUT * fit.steps))


@dataclass(frozen=True)
class AdaptConfig:
    """How a student is adapted. `RECIPES` holds the two that have a name."""

    weighting: str = (
        "evidence"  # of the teachers: mifuse.fusion.evidence, or a name of mifuse.fusion.WEIGHTINGS
    )
    temperature: float = 1.0  # τ of the weights; `evidence` has none
    classifier_draws: int = 8  # M; passes of the classifier with dropout
    refresh: int = 4  # epochs between two fusions, twice as many with a good LALM; 0 fuses once
    warm_start: bool = True  # start from the classifier's weights when the shapes allow
    size: str = "s"  # of a student that starts from scratch
    dropout: float = 0.2  # 0 is off
    prosody: bool = True  # the student has a second head, on pitch and voice quality
    average: bool = True  # the student is the moving average of the weights, not the last step
    verdict: bool = (
        True  # say what to expect of the student; half as long again, for one that misses some speakers
    )
    keep: float = 0.0  # weight of an earlier student's answers beside the labels; 0 is off
    refine: RefineConfig = field(default_factory=RefineConfig)
    fit: FitConfig = field(default_factory=lambda: FitConfig(mix=1.0))

    @property
    def steps(self) -> int:
        """Optimiser steps of a whole run: of the student, and of the second one that the verdict needs."""
        return self.fit.steps + (held_out_steps(self.fit) if self.verdict and self.refine.rounds > 0 else 0)

    def __post_init__(self) -> None:
        require(
            self,
            temperature=(1e-6, math.inf),
            classifier_draws=(1, math.inf),
            refresh=(0, math.inf),
            keep=(0, math.inf),
        )


KEEP = 1.0  # `keep` of a student that is adapted once more; see docs/log for what other weights do
RECIPES = {
    "default": AdaptConfig(),
    # The published formula and nothing else.
    "paper": AdaptConfig(
        weighting="mi",
        refresh=1,
        prosody=False,
        average=False,
        verdict=False,
        refine=RefineConfig(rounds=0, prior=0.0),
        fit=FitConfig(balance=0.0, diversity=0.5, momentum=0.999),
    ),
}
