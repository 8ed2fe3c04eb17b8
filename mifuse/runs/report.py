"""The HTML report of a run: one file with its pictures inside, made from run.json and predictions.csv."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.labels import Naming
from mifuse.clips.manifest import Clip, Manifest, read_manifest
from mifuse.errors import ManifestError, MifuseError
from mifuse.files import whole_file
from mifuse.runs import closely, pictures
from mifuse.runs.metrics import Scores, score
from mifuse.runs.page import CSS, section, table, text
from mifuse.runs.predictions import Predictions, read_predictions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """A run folder as read; what it does not hold is empty."""

    folder: Path
    kind: str
    labels: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    priors: Mapping[str, Sequence[float]] = field(default_factory=dict)  # who -> mean distribution (C,)
    versions: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()  # the demo's table
    target: Path | None = None  # manifest that may hold labels
    predictions: Predictions | None = None
    lalm: str = "LALM"  # what to call it
    cost: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # source of draws -> usd, draws
    verdict: Mapping[str, Any] | None = None  # what the adaptation expected, see `mifuse.fusion.verdict`
    dimensions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what was taught of each


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        MifuseError: no run.json there, or it is not one.
    """
    file = folder / "run.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        labels = tuple(content["labels"])
        kind = content["kind"]
    except FileNotFoundError:
        raise MifuseError(f"{file}: no such run: give the folder that train, adapt or demo wrote") from None
    except (ValueError, KeyError, TypeError) as error:
        raise MifuseError(f"{file}: not the record of a run ({error}): run the command again") from error
    lalm = str(content.get("lalm") or "LALM")  # a stand-in is called one wherever its numbers appear
    fusion = content.get("fusion") or {}
    priors = {name.removesuffix("_prior"): shares for name, shares in fusion.items() if shares is not None}
    target = content.get("target")
    return Run(
        folder,
        kind,
        labels,
        config=content.get("config") or {},
        history=content.get("history") or (),
        priors={lalm if who == "lalm" else who: shares for who, shares in priors.items()},
        versions=content.get("versions") or {},
        notes=content.get("notes") or (),
        rows=content.get("rows") or (),
        target=folder / target if target else None,
        predictions=_predictions(folder, labels, lalm),
        lalm=lalm,
        cost=content.get("cost") or {},
        verdict=content.get("verdict"),
        dimensions=content.get("dimensions") or {},
    )


def _predictions(folder: Path, labels: tuple[str, ...], lalm: str) -> Predictions | None:
    table = folder / "predictions.csv"
    if not table.exists():
        return None
    found = read_predictions(table, labels)
    return replace(found, probs={lalm if who == "LALM" else who: p for who, p in found.probs.items()})


@dataclass(frozen=True)
class Truth:
    """Labels and splits of the clips of a run, read only now that everything is decided."""

    labels: Ints  # (N,) class of each clip, -1 when unlabelled
    splits: NDArray[np.str_]  # (N,) adapt | test
    speakers: list[str | None]

    def rows(self, split: str) -> Ints:
        """Indices of the labelled clips of a split."""
        return np.flatnonzero((self.splits == split) & (self.labels >= 0))


def read_clips(run: Run, manifest: Manifest | None = None) -> list[Clip | None]:
    """The predicted clips in `manifest`, or in the run's own; None for one that it has no more."""
    if run.predictions is None:
        return []
    if manifest is None and run.target is not None and run.target.exists():
        # Recordings may have been moved since; the page then has no players.
        with contextlib.suppress(ManifestError):
            manifest = read_manifest(run.target, labels=None)
    clips = {clip.key: clip for clip in manifest.clips} if manifest else {}
    return [clips.get(name) for name in run.predictions.keys]


def read_truth(run: Run, manifest: Manifest | None = None) -> Truth | None:
    """Labels of the predicted clips from `manifest`, or from the run's own; None when there are none."""
    found = read_clips(run, manifest)
    naming = Naming(tuple(run.labels))  # other words of the archive count as no label
    words = [naming.label(clip.label) if clip and clip.label else None for clip in found]
    labels = [run.labels.index(word) if word else -1 for word in words]
    if max(labels, default=-1) < 0:
        return None
    splits = [(clip.split if clip else None) or "adapt" for clip in found]
    return Truth(np.array(labels), np.array(splits), [clip.speaker if clip else None for clip in found])


def write_report(folder: Path | str, out: Path | str | None = None, manifest: Manifest | None = None) -> Path:
    """Write the report of the run in `folder`.

    Args:
        out: HTML file; None is `report.html` in the run folder.
        manifest: labels to compare with; None is the manifest that the run names.

    Returns:
        The path of the report.
    """
    run = read_run(Path(folder))
    out = Path(out) if out else run.folder / "report.html"
    page = render(run, read_truth(run, manifest), read_clips(run, manifest), out.parent)
    with whole_file(out) as partial:
        partial.write_text(page, encoding="utf-8")
    return out


def render(
    run: Run, truth: Truth | None, clips: Sequence[Clip | None] = (), folder: Path | None = None
) -> str:
    """The page. Every text that comes from outside is escaped.

    Args:
        clips: of each prediction, as `read_clips` gives them.
        folder: where the page will be, for the players of clips; None: there are none.
    """
    versions = " · ".join(f"{name} {version}" for name, version in run.versions.items())
    title = f"mifuse {run.kind}: {run.folder.resolve().name}"
    sections = [
        *(f'<section class="note">{text(note)}</section>' for note in run.notes),
        _verdict_section(run),
        _table_section(run),
        _score_section(run, truth),
        _dimension_section(run),
        _speaker_section(run, truth, clips),
        _player_section(run, clips, folder),
        _confusion_section(run, truth),
        _weight_section(run, truth),
        _curve_section(run),
        _reliability_section(run, truth),
        _prior_section(run, truth),
        _cost_section(run),
        _settings_section(run),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        '<link rel="icon" href="data:,"/>\n'
        f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{text(title)}</h1><p>{text(versions)}</p></header>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _verdict_section(run: Run) -> str:
    if not run.verdict:
        return ""
    rows = []
    for where, name in (("archive", "archive"), ("new_voices", "new voices")):
        for who, one in run.verdict[where].items():
            scores = [[one[key], *one[f"{key}_interval"]] for key in ("ua", "accuracy")]
            rows.append([name, who, *("{:.0f} ({:.0f} to {:.0f})".format(*score) for score in scores)])
    header = ["speakers", "who", "expected UA, % (95 % interval)", "expected accuracy, %"]
    checked = run.verdict["checked"]
    how = f"corrected by {checked} checked clips" if checked else "estimated without any label"
    about = f"<strong>{text(run.verdict['advice'])}</strong> The scores are {how}."
    return section("Verdict", about, table(header, rows))


def _table_section(run: Run) -> str:
    if not run.rows:
        return ""
    header = list(run.rows[0])
    rows = [["–" if row.get(name) is None else row[name] for name in header] for row in run.rows]
    return section(
        "Result", "UA is the mean of the per-class recalls; latency is of one thread.", table(header, rows)
    )


def _splits(truth: Truth) -> list[str]:
    return [split for split in ("adapt", "test") if len(truth.rows(split))]


def _scores(run: Run, truth: Truth, split: str) -> dict[str, Scores]:
    """Scores of everyone who predicts the labelled clips of a split."""
    rows = truth.rows(split)
    speakers = [truth.speakers[row] for row in rows]
    said = {who: probs[rows] for who, probs in (run.predictions.probs if run.predictions else {}).items()}
    return {
        who: score(truth.labels[rows], probs, speakers if any(speakers) else None)
        for who, probs in said.items()
        if len(rows) and not np.isnan(probs).any()
    }


def _score_section(run: Run, truth: Truth | None) -> str:
    if truth is None and not run.labels:
        return ""
    if truth is None:
        return section("Scores", "The run has no labels to compare with.", "")
    rows = []
    for split in _splits(truth):
        for who, scores in _scores(run, truth, split).items():
            low, high = scores.ua_interval
            numbers = (f"{value:.1f}" for value in (scores.ua, scores.wa, scores.macro_f1))
            rows.append([who, split, *numbers, f"{low:.1f} – {high:.1f}", f"{scores.ece:.3f}", scores.n])
    header = ["who", "split", "UA %", "WA %", "macro-F1 %", "UA, 95 % interval", "ECE", "clips"]
    about = "Labels were read for this page only. The interval is a bootstrap over speakers."
    return section("Scores", about, table(header, rows))


def _dimension_section(run: Run) -> str:
    rows = [
        [name, "{:g} to {:g}".format(*one["range"]), f"{one['student']:.2f}", f"{one['taught']:.2f}", by]
        for name, one in run.dimensions.items()
        for by in [", ".join(f"{who} {share:.0%}" for who, share in one["shares"].items())]
    ]
    header = ["dimension", "range", "student, mean", "taught, mean", "by whom"]
    about = "Means over the clips; what a teacher's draws disagree about counts less. No labels are read."
    return section("Dimensions", about, table(header, rows)) if rows else ""


def _confusion_section(run: Run, truth: Truth | None) -> str:
    if truth is None:
        return ""
    parts = []
    for split in _splits(truth):
        matrices = {who: scores.confusion for who, scores in _scores(run, truth, split).items()}
        if matrices:
            parts.append(f"<p>{split} split</p>{pictures.confusions(matrices, run.labels)}")
    return section("Confusions", "Rows are labels; each number is % of its row.", "\n".join(parts))


def separation(weight: Floats, right: NDArray[np.bool_]) -> float:
    """Chance that a right clip has the higher weight than a wrong one (AUROC); 0.5: the weight says nothing.

    >>> separation(np.array([0.9, 0.8, 0.2]), np.array([True, True, False]))
    1.0
    """
    high, low = weight[right], weight[~right]
    if not len(high) or not len(low):
        return float("nan")
    below = np.searchsorted(np.sort(low), high, side="left")
    equal = np.searchsorted(np.sort(low), high, side="right") - below
    return float((below + equal / 2).mean() / len(low))


_WEIGHTS = {
    "mi": "The LALM's share follows from how much its draws disagree, compared with the classifier's.",
    "entropy": "The LALM's share follows from how unsure its mean draw is, compared with the classifier's.",
    "uniform": "LALM and classifier count alike.",
    "evidence": "How far the refined labels agree with the LALM, compared with the classifier.",
}


def _weight_section(run: Run, truth: Truth | None) -> str:
    weight = run.predictions.measures.get("lalm_weight") if run.predictions else None
    if run.predictions is None or weight is None or np.isnan(weight).all():
        return ""
    fused = np.isfinite(weight)
    about = _WEIGHTS.get(str(run.config.get("weighting")), _WEIGHTS["evidence"])
    right = {}
    if truth is not None:
        fused &= truth.labels >= 0
        for who in (run.lalm, "classifier"):
            probs = run.predictions.probs.get(who)
            if probs is not None and not np.isnan(probs[fused]).any():
                right[who] = probs[fused].argmax(axis=1) == truth.labels[fused]
    if right:
        about += " A weight that works rises with the LALM's curve and falls with the classifier's."
    if run.lalm in right:
        chance = separation(weight[fused], right[run.lalm])
        about += (
            f" The LALM's weight is higher where it is right in {100 * chance:.0f} % of pairs (50 %: no use)."
        )
    title = "Fusion weight against correctness" if right else "Fusion weight"
    return section(title, about, pictures.weights(weight[fused], right))


def _curve_section(run: Run) -> str:
    picture = pictures.curves(run.history, len(run.labels)) if run.history else ""
    about = "Predicted classes whose entropy falls towards 0 are a student that collapses into one class."
    return section("Training", about, picture) if picture else ""


def _reliability_section(run: Run, truth: Truth | None) -> str:
    if truth is None or run.predictions is None:
        return ""
    split = _splits(truth)[-1]
    rows = truth.rows(split)
    lines = {}
    for who in _scores(run, truth, split):
        probs = run.predictions.probs[who][rows]
        lines[who] = (probs.max(axis=1), probs.argmax(axis=1) == truth.labels[rows])
    about = (
        f"{split} split: on the diagonal, confidence equals accuracy; below it, the model is overconfident."
    )
    return section("Reliability", about, pictures.reliability(lines)) if lines else ""


def _prior_section(run: Run, truth: Truth | None) -> str:
    shares = dict(run.priors)
    if truth is not None and len(rows := truth.rows("adapt")):
        shares["labels"] = (np.bincount(truth.labels[rows], minlength=len(run.labels)) / len(rows)).tolist()
    if not run.priors:
        return ""
    about = (
        "Mean prediction over the adapt clips: a LALM that falls for a few classes shows here without labels."
    )
    return section("Class prior", about, pictures.priors(shares, run.labels))


def _speaker_section(run: Run, truth: Truth | None, clips: Sequence[Clip | None]) -> str:
    student = run.predictions.probs.get("student") if run.predictions else None
    if student is None or not clips:
        return ""
    names = [clip.speaker if clip else None for clip in clips]
    body = closely.speakers(names, student, run.labels, truth.labels if truth else None)
    about = "Of the student. Who is worst served comes first; a few clips of a speaker say little."
    return section("Speakers", about, body) if body else ""


def _player_section(run: Run, clips: Sequence[Clip | None], folder: Path | None) -> str:
    if run.predictions is None or folder is None:
        return ""
    body = closely.players(clips, run.predictions.probs, run.labels, folder.resolve())
    about = "The student is least certain of these. The page plays the recordings where they are."
    return section("Where to listen", about, body) if body else ""


def _cost_section(run: Run) -> str:
    rows = [
        [source, one.get("draws", 0), f"${one.get('usd', 0):.2f}", f"${one.get('unsettled_usd', 0):.2f}"]
        for source, one in run.cost.items()
    ]
    about = "As the store noted it when the student was adapted; all clips of the store count."
    header = ["teacher", "draws", "cost", "at most for requests without an answer"]
    return section("Cost of the draws", about, table(header, rows)) if rows else ""


def _settings_section(run: Run) -> str:
    rows = [[name, json.dumps(value, ensure_ascii=False)] for name, value in _flat(run.config)]
    return section("Settings", "", table(["setting", "value"], rows, "settings")) if rows else ""


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted names, as `--set` takes them."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
