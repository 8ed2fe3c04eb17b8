"""Other ways to use the same clips, draws and classifier: same student, same budget, same selection.

Every baseline is a student trained with `config.fit`, at a share of its learning rate where that is better
(`at_lower_rate`), and the moving average after the last step is what counts: none of them sees a label. Each
published method is written from its paper's equations, with the paper's settings. Soft labels are fitted on
augmented clips; the others learn from clips as they are, see `Method.plain`, PLUE from both.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.baselines.dine import Dine
from benchmarks.baselines.distillation import distil, fusion, lalm_only
from benchmarks.baselines.method import Baseline, Method, Task
from benchmarks.baselines.nrc import Nrc
from benchmarks.baselines.plue import Plue
from benchmarks.baselines.prode import Prode
from benchmarks.baselines.shot import Shot
from benchmarks.baselines.tent import Tent
from mifuse.models.student import Student

__all__ = ["BASELINES", "Baseline", "Task", "distil", "lalm_only"]


def _adapted(method: Callable[[Task], Method]) -> Callable[[Task], Student]:
    return lambda task: method(task).adapted()


BASELINES: dict[str, Baseline] = {
    "lalm-only": Baseline(
        "LALM-only distillation", "LALM", "fits the LALM's mean draw, as LALM SFUDA does", lalm_only
    ),
    "uniform": Baseline("uniform fusion", "both", "fits the mean of both teachers", fusion("uniform")),
    "entropy": Baseline(
        "entropy fusion", "both", "fits the teachers weighed by exp(-entropy of the mean draw)",
        fusion("entropy"),
    ),
    "tent": Baseline(
        "TENT", "classifier", "minimises entropy by the batch norms' scales and shifts", _adapted(Tent)
    ),
    "shot": Baseline(
        "SHOT", "classifier", "information maximisation and centroid pseudo-labels, head frozen",
        _adapted(Shot),
    ),
    "nrc": Baseline(
        "NRC", "classifier", "draws predictions to those of reciprocal neighbours", _adapted(Nrc)
    ),
    "plue": Baseline(
        "PLUE", "classifier", "negative learning on pseudo-labels that neighbours refine and weigh",
        _adapted(Plue),
    ),
    "dine": Baseline(
        "DINE", "LALM", "distils smoothed answers and past predictions, then mutual information",
        _adapted(Dine),
    ),
    "prode": Baseline(
        "ProDe", "both", "learns from LALM answers corrected by how the student left the classifier",
        _adapted(Prode),
    ),
}  # fmt: skip
"""Name -> what makes its student.

TENT, SHOT, NRC, PLUE and ProDe adapt the classifier; the others start as `config.warm_start` says."""
