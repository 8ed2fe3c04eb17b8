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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mifuse.fusion.evidence import Evidence
from mifuse.fusion.reliability import accuracy_together, expected_accuracy, reliabilities, tempered

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

BOOTSTRAP = 200  # samples of speakers
SYSTEMATIC = (
    6.0  # points of UA: deviation of the estimates on the archives of benchmarks.field, beside sampling
)
FOUNDED = 32  # check clips from which their correction is used
# Points of UA on new voices that are a difference, with a check set; without one a lead must also be larger
# than the estimates' own deviation before the student is deployed.
MARGIN = 2.0
ENOUGH = 150  # clips; of fewer the estimates were off by 12 points (docs/log/2026-11-30-verdict.md)
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
    """Whether the student is expected to be better than every other source by more than estimates are off by,
    with clips enough, and also if one emotion prevails as the LALM says."""
    advice: str
    """A sentence or two: deploy, check first, collect more, or keep asking the LALM."""
    checked: int
    """Clips of the check set that corrected the estimate; 0: no label was used."""

    def as_json(self) -> dict[str, Any]:
        """JSON values, as run.json, cards and `--json` carry them."""
        return asdict(self)


def calibrated(labels: Array, evidence: Evidence) -> Array:
    """Refined labels (N, C) no surer than the teachers' reliabilities allow.

    One power flattens all rows, chosen so that the labels give each teacher the unweighted accuracy that its
    reliability stands for, and themselves no more than teachers and probe can have right together.
    """
    if np.isnan(evidence.reliabilities).any():
        return labels
    classes = labels.shape[1]
    uniform = np.full(classes, 1 / classes)
    wanted = [100 * expected_accuracy(float(one), uniform) for one in evidence.reliabilities]
    most = 100 * accuracy_together(evidence.reliabilities, classes)
    top = float(labels.max(axis=1).mean())
    confidences = np.linspace(min(uniform.max() + 0.05, top), top, 40)
    softer = [tempered(labels, confidence) for confidence in confidences]
    softer = [one for one in softer if _ua(one, labels) <= most] or softer[:1]
    errors = [
        sum((_ua(one, view) - goal) ** 2 for view, goal in zip(evidence.opinions[:-1], wanted, strict=False))
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
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]

    def recalls_and_accuracy(rows: Indices, check: Indices) -> tuple[Array, float]:
        hits, clips = (part[rows].mean(axis=0) for part in parts)
        if len(check):
            more = [(true[check] - soft[check]).mean(axis=0) for true, soft in zip(truth, parts, strict=True)]
            hits, clips = hits + more[0], clips + more[1]
        clips = np.maximum(clips, 1e-3)
        return 100 * np.clip(hits / clips, 0, 1), 100 * float(np.clip(hits.sum(), 0, 1))

    rows, check = np.arange(len(labels)), np.flatnonzero((known >= 0) & founded(known))
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


def founded(known: Indices | None) -> bool:
    """Whether a check set, -1 of clips that are not in it, (N,), is large enough to correct an estimate."""
    return known is not None and int((known >= 0).sum()) >= FOUNDED


def corrected_by_agreement(found: Expected, answers: Array, opinions: Sequence[Array]) -> Expected:
    """The expected scores of a student on clips that it never had, corrected by its agreement with others.

    Labels take themselves to be right where a student differs, so they expect too little of one that errs
    elsewhere. The reliability that follows from its agreement with teachers and probe is too high, since it
    learnt from them. The mean of both is expected.

    Args:
        found: what the labels expect.
        answers: the student's (N, C), with the class prior of the labels.
        opinions: of the teachers and the probe on the same clips, (N, C) each.
    """
    classes = answers.shape[1]
    reliability = float(reliabilities([*opinions, answers])[-1])
    more = (100 * expected_accuracy(reliability, np.full(classes, 1 / classes)) - found.ua) / 2

    def moved(*scores: float) -> tuple[float, ...]:
        return tuple(float(np.clip(score + more, 0, 100)) for score in scores)

    ua, low, high = moved(found.ua, *found.ua_interval)
    accuracy, least, most = moved(found.accuracy, *found.accuracy_interval)
    return Expected(ua, (low, high), accuracy, (least, most), moved(*found.recalls))


def judge(
    archive: Mapping[str, Expected],
    new_voices: Mapping[str, Expected],
    checked: int,
    *,
    clips: int = ENOUGH,
    called: Mapping[str, float] | None = None,
) -> Verdict:
    """The verdict that follows from the expected scores of each source.

    Args:
        clips: in the archive.
        called: label -> share of the clips that the LALM calls so; None or empty where the class shares are
            known.
    """
    decisive = new_voices or archive
    if (
        len(archive) == 2 and checked < FOUNDED
    ):  # one LALM and no other teacher: two views, of which neither can judge the other
        return Verdict(archive, new_voices, "LALM", False, _ALONE, checked)
    others = {who: scores.ua for who, scores in decisive.items() if who != STUDENT}
    rival = max(others, key=lambda who: others[who])
    ahead = decisive[STUDENT].ua - others[rival]
    breaking = _break_even(decisive, called or {}) if ahead >= 0 else None
    few = clips < ENOUGH and checked < FOUNDED
    close = ahead < (MARGIN if checked >= FOUNDED else SYSTEMATIC)
    sure = not close and not few and not (breaking and breaking.reached)
    return Verdict(
        archive,
        new_voices,
        STUDENT if ahead >= 0 else rival,
        sure,
        _advice(decisive, rival, ahead, close=close, few=clips if few else None, breaking=breaking),
        checked,
    )


_ALONE = (
    "With a LALM alone nothing says how good the LALM is, and so the student: give a classifier, or a check "
    "set (`mifuse choose --random 40`)."
)
_CHECK = "listen to a check set (`mifuse choose --random 40`) before you deploy the student"


class BreakEven(NamedTuple):
    """The share of one emotion from which another source is expected to be right more often."""

    share: float
    label: str
    who: str
    called: float
    """Share of the clips that the LALM calls so."""

    @property
    def reached(self) -> bool:
        """Whether there are so many by what the LALM says; if it is right, the student loses."""
        return self.called >= self.share


def _advice(
    scores: Mapping[str, Expected],
    rival: str,
    ahead: float,
    *,
    close: bool,
    few: int | None,
    breaking: BreakEven | None,
) -> str:
    """What to do, in a sentence or two; `few`: how many clips there are where they are too few."""
    student = scores[STUDENT].ua
    figures = f"expected UA {student:.0f} % against {scores[rival].ua:.0f} % of the {rival}"
    if ahead <= -MARGIN and rival == "classifier":
        return f"Keep the classifier ({figures}), or collect recordings of more speakers and adapt again."
    if ahead <= -MARGIN:
        return (
            f"Keep asking the LALM ({figures}), or collect recordings of more speakers and adapt again; "
            "the student is not expected to win."
        )
    if few is not None or close:
        why = "Too close to call (" if few is None else f"Too few clips to say ({few}, {ENOUGH} are needed; "
        return f"{why}{figures}): {_CHECK}."
    if breaking is None:
        return f"Deploy the student: {figures}."
    share, label, who, called = breaking
    then = f"more than {share:.0%} of the clips are {label}, the {who} is expected to be right more often"
    if breaking.reached:
        return (
            f"Check before you deploy: the LALM calls {called:.0%} of the clips {label}, and if {then} than "
            f"the student ({figures}). Say how often each emotion occurs (--shares), or {_CHECK}."
        )
    return (
        f"Deploy the student: {figures}. If {then}: say how often each emotion occurs (--shares), or check "
        "clips (`mifuse choose --random 40`)."
    )


def _break_even(scores: Mapping[str, Expected], called: Mapping[str, float]) -> BreakEven | None:
    """The emotion of which another source needs the fewest clips; one that the LALM says is reached first.

    With a share p of one class, and the others alike, accuracy is p times its recall and 1 - p times the mean
    of theirs.
    """
    student, found = scores[STUDENT], []
    for who, other in scores.items():
        for (label, share), mine, theirs in zip(called.items(), student.recalls, other.recalls, strict=False):
            behind = theirs - mine
            ahead = (sum(student.recalls) - mine - sum(other.recalls) + theirs) / max(len(called) - 1, 1)
            if behind > 0 and ahead > 0:
                found.append(BreakEven(ahead / (ahead + behind), label, who, share))
    found = [one for one in found if one.reached or one.share < PREVAILING]
    return min(found, key=lambda one: (not one.reached, one.share), default=None)


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
