"""The HTML report of a run: one file with its pictures inside, made from run.json and predictions.csv."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.labels import Naming
from mifuse.clips.manifest import Manifest, read_manifest
from mifuse.errors import MifuseError
from mifuse.runs import pictures
from mifuse.runs.metrics import Scores, score
from mifuse.runs.predictions import Predictions, read_predictions
from mifuse_runtime.shown import shown

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1f2937;
       background: #f3f4f6; margin: 0; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 0 0 8px; }
header p { color: #6b7280; margin: 4px 0 20px; }
section { background: #fff; border: 1px solid #e5e7eb; border-radius: 10px; padding: 20px 24px;
          margin: 16px 0; }
section p { max-width: 75ch; color: #4b5563; margin: 6px 0 12px; }
.note { background: #fffbeb; border-color: #fde68a; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 16px 5px 0; text-align: right; border-bottom: 1px solid #e5e7eb; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
thead th { color: #6b7280; font-weight: 600; }
.settings th, .settings td { text-align: left; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
svg { max-width: 100%; height: auto; font-family: inherit; }
"""


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
    verdict: Mapping[str, Any] | None = None  # what the adaptation expected, see `mifuse.fusion.verdict`


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
        verdict=content.get("verdict"),
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


def read_truth(run: Run, manifest: Manifest | None = None) -> Truth | None:
    """Labels of the predicted clips from `manifest`, or from the run's own; None when there are none."""
    if run.predictions is None:
        return None
    if manifest is None:
        if run.target is None or not run.target.exists():
            return None
        manifest = read_manifest(run.target, labels=None)
    clips = {clip.key: clip for clip in manifest.clips}
    found = [clips.get(name) for name in run.predictions.keys]
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
    page = render(run, read_truth(run, manifest))
    temporary = out.with_name(f".{out.name}.part")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def render(run: Run, truth: Truth | None) -> str:
    """The page. Every text that comes from outside is escaped."""
    versions = " · ".join(f"{name} {version}" for name, version in run.versions.items())
    title = f"mifuse {run.kind}: {run.folder.resolve().name}"
    sections = [
        *(f'<section class="note">{_text(note)}</section>' for note in run.notes),
        _verdict_section(run),
        _table_section(run),
        _score_section(run, truth),
        _confusion_section(run, truth),
        _weight_section(run, truth),
        _curve_section(run),
        _reliability_section(run, truth),
        _prior_section(run, truth),
        _settings_section(run),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{_text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{_text(title)}</h1><p>{_text(versions)}</p></header>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return html.escape(shown(value))


def _section(title: str, text: str, body: str) -> str:
    return f'<section>\n<h2>{title}</h2>\n<p>{text}</p>\n<div class="scroll">{body}</div>\n</section>'


def _table(header: Sequence[str], rows: Sequence[Sequence[object]], style: str = "") -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<table class="{style}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>'


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
    text = f"<strong>{_text(run.verdict['advice'])}</strong> The scores are {how}."
    return _section("Verdict", text, _table(header, rows))


def _table_section(run: Run) -> str:
    if not run.rows:
        return ""
    header = list(run.rows[0])
    rows = [["–" if row.get(name) is None else row[name] for name in header] for row in run.rows]
    return _section(
        "Result", "UA is the mean of the per-class recalls; latency is of one thread.", _table(header, rows)
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
    if truth is None:
        return _section("Scores", "The run has no labels to compare with.", "")
    rows = []
    for split in _splits(truth):
        for who, scores in _scores(run, truth, split).items():
            low, high = scores.ua_interval
            numbers = (f"{value:.1f}" for value in (scores.ua, scores.wa, scores.macro_f1))
            rows.append([who, split, *numbers, f"{low:.1f} – {high:.1f}", f"{scores.ece:.3f}", scores.n])
    header = ["who", "split", "UA %", "WA %", "macro-F1 %", "UA, 95 % interval", "ECE", "clips"]
    text = "Labels were read for this page only. The interval is a bootstrap over speakers."
    return _section("Scores", text, _table(header, rows))


def _confusion_section(run: Run, truth: Truth | None) -> str:
    if truth is None:
        return ""
    parts = []
    for split in _splits(truth):
        matrices = {who: scores.confusion for who, scores in _scores(run, truth, split).items()}
        if matrices:
            parts.append(f"<p>{split} split</p>{pictures.confusions(matrices, run.labels)}")
    return _section("Confusions", "Rows are labels; each number is % of its row.", "\n".join(parts))


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
    text = _WEIGHTS.get(str(run.config.get("weighting")), _WEIGHTS["evidence"])
    right = {}
    if truth is not None:
        fused &= truth.labels >= 0
        for who in (run.lalm, "classifier"):
            probs = run.predictions.probs.get(who)
            if probs is not None and not np.isnan(probs[fused]).any():
                right[who] = probs[fused].argmax(axis=1) == truth.labels[fused]
    if right:
        text += " A weight that works rises with the LALM's curve and falls with the classifier's."
    if run.lalm in right:
        chance = separation(weight[fused], right[run.lalm])
        text += (
            f" The LALM's weight is higher where it is right in {100 * chance:.0f} % of pairs (50 %: no use)."
        )
    return _section("Fusion weight against correctness", text, pictures.weights(weight[fused], right))


def _curve_section(run: Run) -> str:
    picture = pictures.curves(run.history, len(run.labels)) if run.history else ""
    text = "Predicted classes whose entropy falls towards 0 are a student that collapses into one class."
    return _section("Training", text, picture) if picture else ""


def _reliability_section(run: Run, truth: Truth | None) -> str:
    if truth is None or run.predictions is None:
        return ""
    split = _splits(truth)[-1]
    rows = truth.rows(split)
    lines = {}
    for who in _scores(run, truth, split):
        probs = run.predictions.probs[who][rows]
        lines[who] = (probs.max(axis=1), probs.argmax(axis=1) == truth.labels[rows])
    text = (
        f"{split} split: on the diagonal, confidence equals accuracy; below it, the model is overconfident."
    )
    return _section("Reliability", text, pictures.reliability(lines)) if lines else ""


def _prior_section(run: Run, truth: Truth | None) -> str:
    shares = dict(run.priors)
    if truth is not None and len(rows := truth.rows("adapt")):
        shares["labels"] = (np.bincount(truth.labels[rows], minlength=len(run.labels)) / len(rows)).tolist()
    if not run.priors:
        return ""
    text = (
        "Mean prediction over the adapt clips: a LALM that falls for a few classes shows here without labels."
    )
    return _section("Class prior", text, pictures.priors(shares, run.labels))


def _settings_section(run: Run) -> str:
    rows = [[name, json.dumps(value, ensure_ascii=False)] for name, value in _flat(run.config)]
    return _section("Settings", "", _table(["setting", "value"], rows, "settings")) if rows else ""


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted names, as `--set` takes them."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
