"""The verdict: how good LALM, classifier, their average and the student are expected to be, without labels.

The refined labels are made as sure as the teachers' reliabilities allow, so that they say of each clip how
likely each emotion is. What somebody predicts is expected to be as good as these labels say, on the mean of
the clips. On new voices a second student is scored that never had the clips of some speakers. With a random
check set, true labels correct the estimate (prediction-powered inference).

Sources: `mifuse.fusion.reliability`; Angelopoulos et al., "Prediction-powered inference" (Science 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mifuse.fusion.evidence import Evidence
from mifuse.fusion.reliability import expected_accuracy, tempered

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

BOOTSTRAP = 200  # samples of speakers
SYSTEMATIC = (
    6.0  # points of UA: deviation of the estimates on the archives of benchmarks.field, beside sampling
)
FOUNDED = 32  # check clips from which their correction is used
MARGIN = 2.0  # points of UA on new voices by which the student must be ahead to be deployed
PREVAILING = 0.9  # share of one emotion up to which an archive without known shares is thought of
STUDENT = "student"


@dataclass(frozen=True)
class Expected:
    """Expected scores of one source of labels, %, each with a 95 % interval."""

    ua: float
    ua_interval: tuple[float, float]
    accuracy: float
    accuracy_interval: tuple[float, float]
    recalls: tuple[float, ...] = ()
    """Of each class, %, in the order of the labels."""


@dataclass(frozen=True)
class Verdict:
    """What to expect, and what to do."""

    archive: Mapping[str, Expected]
    """Source (LALM, classifier, average, student) -> its scores on the archive."""
    new_voices: Mapping[str, Expected]
    """The same for speakers of whom there is no recording; empty where no second student was fitted."""
    best: str
    """The source that is expected to be best for new voices, or on the archive where that is all there is."""
    deploy: bool
    """Whether the student is expected to be at least as good as every other source."""
    advice: str
    """One sentence: deploy, collect more, or keep asking the LALM."""
    checked: int
    """Clips of the check set that corrected the estimate; 0: no label was used."""

    def as_json(self) -> dict[str, Any]:
        """JSON values, as run.json, cards and `--json` carry them."""
        return asdict(self)


def calibrated(labels: Array, evidence: Evidence, opinions: Sequence[Array]) -> Array:
    """Refined labels (N, C) no surer than the teachers' reliabilities allow.

    One power flattens all rows, chosen so that the labels give each teacher the unweighted accuracy that its
    reliability stands for.

    Args:
        opinions: the teachers' views with the class prior of the labels, (N, C) each.
    """
    if np.isnan(evidence.reliabilities).any():
        return labels
    uniform = np.full(labels.shape[1], 1 / labels.shape[1])
    wanted = [100 * expected_accuracy(float(one), uniform) for one in evidence.reliabilities]
    top = float(labels.max(axis=1).mean())
    confidences = np.linspace(min(uniform.max() + 0.05, top), top, 40)
    softer = [tempered(labels, confidence) for confidence in confidences]
    errors = [
        sum((_ua(one, view) - goal) ** 2 for view, goal in zip(opinions, wanted, strict=True))
        for one in softer
    ]
    return softer[int(np.argmin(errors))]


def expected(
    labels: Array,
    predictions: Array,
    groups: Indices,
    known: Indices | None = None,
    seed: int = 0,
) -> Expected:
    """Expected scores of predictions (N, C) where the emotions of each clip are as likely as `labels` (N, C).

    Args:
        groups: speaker of each clip, or the clip itself, (N,): what an interval resamples.
        known: class of each clip of a random check set, -1 of all others, (N,).
    """
    known = np.full(len(labels), -1) if known is None else known
    right = np.eye(labels.shape[1])[predictions.argmax(axis=1)]
    parts = _parts(labels, right)
    truth = _parts(np.eye(labels.shape[1])[np.maximum(known, 0)], right)
    checked = known >= 0
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]

    def recalls_and_accuracy(rows: Indices, check: Indices) -> tuple[Array, float]:
        hits, clips = (part[rows].mean(axis=0) for part in parts)
        if len(check):
            more = [(true[check] - soft[check]).mean(axis=0) for true, soft in zip(truth, parts, strict=True)]
            hits, clips = hits + more[0], clips + more[1]
        clips = np.maximum(clips, 1e-3)
        return 100 * np.clip(hits / clips, 0, 1), 100 * float(np.clip(hits.sum(), 0, 1))

    rows, check = np.arange(len(labels)), np.flatnonzero(checked)
    check = check if len(check) >= FOUNDED else check[:0]
    samples = []
    for _ in range(BOOTSTRAP):
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        again = rng.choice(check, len(check)) if len(check) else check
        recalls, accuracy = recalls_and_accuracy(drawn, again)
        samples.append((recalls.mean(), accuracy))
    spread = np.std(samples, axis=0)
    if not len(check):
        spread = np.sqrt(spread**2 + SYSTEMATIC**2)
    recalls, accuracy = recalls_and_accuracy(rows, check)
    ua = float(recalls.mean())
    intervals = _interval(ua, spread[0]), _interval(accuracy, spread[1])
    return Expected(ua, intervals[0], accuracy, intervals[1], tuple(recalls.tolist()))


def judge(
    archive: Mapping[str, Expected],
    new_voices: Mapping[str, Expected],
    checked: int,
    prevailing: Sequence[str] = (),
) -> Verdict:
    """The verdict that follows from the expected scores of each source.

    Args:
        prevailing: labels, of which one may be that of most clips; none where the class shares are known.
    """
    decisive = new_voices or archive
    if (
        len(archive) == 2 and checked < FOUNDED
    ):  # one LALM and no other teacher: two views, of which neither can judge the other
        return Verdict(archive, new_voices, "LALM", False, _ALONE, checked)
    others = {who: scores.ua for who, scores in decisive.items() if who != STUDENT}
    rival = max(others, key=lambda who: others[who])
    ahead = decisive[STUDENT].ua - others[rival]
    deploy = ahead >= MARGIN
    return Verdict(
        archive,
        new_voices,
        STUDENT if ahead >= 0 else rival,
        deploy,
        _advice(decisive, rival, ahead) + (_caution(decisive, prevailing) if ahead >= 0 else ""),
        checked,
    )


_ALONE = (
    "With a LALM alone nothing says how good the LALM is, and so the student: give a classifier, or a check "
    "set (`mifuse choose --random 40`)."
)


def _advice(scores: Mapping[str, Expected], rival: str, ahead: float) -> str:
    """What to do, in one sentence."""
    student = scores[STUDENT].ua
    figures = f"expected UA {student:.0f} % against {scores[rival].ua:.0f} % of the {rival}"
    if ahead >= MARGIN:
        return f"Deploy the student: {figures}."
    if ahead > -MARGIN:
        return (
            f"Too close to call ({figures}): listen to a check set "
            "(`mifuse choose --random 40`) before you deploy the student."
        )
    if rival == "classifier":
        return f"Keep the classifier ({figures}), or collect recordings of more speakers and adapt again."
    return (
        f"Keep asking the LALM ({figures}), or collect recordings of more speakers and adapt again; "
        "the student is not expected to win."
    )


def _caution(scores: Mapping[str, Expected], labels: Sequence[str]) -> str:
    """From which share of one emotion another source is right more often than the student; "" if from none.

    With a share p of one class, and the others alike, accuracy is p times its recall and 1 - p times the mean
    of theirs.
    """
    student, found = scores[STUDENT], [(PREVAILING, "", "")]
    for who, other in scores.items():
        for label, mine, theirs in zip(labels, student.recalls, other.recalls, strict=False):
            behind = theirs - mine
            ahead = (sum(student.recalls) - mine - sum(other.recalls) + theirs) / max(len(labels) - 1, 1)
            if behind > 0 and ahead > 0:
                found.append((ahead / (ahead + behind), label, who))
    share, label, who = min(found)
    if not label:
        return ""
    return (
        f" If more than {share:.0%} of the clips are {label}, the {who} is expected to be right more often: "
        "say how often each emotion occurs (--shares), or check clips (`mifuse choose --random 40`)."
    )


def _ua(labels: Array, predictions: Array) -> float:
    """Expected UA of predictions (N, C) by soft labels (N, C), %."""
    hits, clips = _parts(labels, np.eye(labels.shape[1])[predictions.argmax(axis=1)])
    return float(100 * (hits.sum(axis=0) / np.maximum(clips.sum(axis=0), 1e-9)).mean())


def _parts(labels: Array, right: Array) -> tuple[Array, Array]:
    """Of each clip and class: how likely a hit is, and how likely the class, (N, C) each."""
    return labels * right, labels


def _interval(score: float, spread: float) -> tuple[float, float]:
    low, high = np.clip([score - 1.96 * spread, score + 1.96 * spread], 0, 100)
    return float(low), float(high)
