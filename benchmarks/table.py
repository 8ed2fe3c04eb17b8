"""What the stored results of `benchmarks.transfers` say: scores, intervals, tables. Trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.units import SPLITS, Transfer, Unit
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest
from mifuse.runs.metrics import confusion_matrix, exchanged

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
ROUNDS = 2000  # bootstrap samples
NO_BASELINES = ("paper", "default", "few", "asked", "oracle")  # and what is made of them

Hits = NDArray[np.float64]  # share of the seeds that are right, one number a clip


@dataclass
class Results:
    """Predictions by method and transfer, and the true classes of every target."""

    truth: dict[tuple[str, str], Ints]  # (target, split) -> classes, -1 without a label
    runs: dict[tuple[str, Transfer], dict[int, dict[str, Array]]] = field(default_factory=dict)  # -> seed

    @classmethod
    def of(cls, corpora: Path, units: Iterable[Unit]) -> Results:
        """The results of those units that are done."""
        results = cls({})
        for unit in units:
            target = unit.transfer.target
            if unit.method is None or not unit.file.exists():
                continue
            for split in SPLITS:
                if (target, split) not in results.truth:
                    clips = read_manifest(corpora / target / "target.csv").select(SPLITS[split]).clips
                    classes = [LABELS.index(clip.label) if clip.label else -1 for clip in clips]
                    results.truth[target, split] = np.array(classes)
            with np.load(unit.file, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            results.runs.setdefault((unit.method.name, unit.transfer), {})[unit.seed] = arrays
        return results

    def hardware(self) -> dict[str, int]:
        """What the results were made on, and how many of them."""
        runs = [run for seeds in self.runs.values() for run in seeds.values()]
        return dict(Counter(str(run["hardware"]) for run in runs if "hardware" in run))

    def has(self, method: str, transfers: Sequence[Transfer]) -> bool:
        """Whether there is a result of the method for each of the transfers."""
        return bool(transfers) and all((method, transfer) in self.runs for transfer in transfers)

    def hits(self, method: str, transfer: Transfer, split: str, key: str | None = None) -> Hits:
        """Share of the seeds whose prediction is right, for each labelled clip."""
        truth = self.truth[transfer.target, split]
        runs = self.runs[method, transfer].values()
        right = [run[key or split].argmax(axis=1) == truth for run in runs]
        return np.asarray(np.mean(right, axis=0)[truth >= 0])

    def classes(self, transfer: Transfer, split: str) -> Ints:
        """True classes of the labelled clips."""
        truth = self.truth[transfer.target, split]
        return truth[truth >= 0]

    def recalls(self, method: str, transfer: Transfer, split: str) -> Array:
        """(seeds, C) in %."""
        truth = self.truth[transfer.target, split]
        rows = []
        for _, run in sorted(self.runs[method, transfer].items()):
            right = run[split].argmax(axis=1) == truth
            asked = run["told"] < 0 if split == "adapt" and "told" in run else np.full(len(truth), True)
            rows.append([_mean(right[asked & (truth == c)]) for c in range(len(LABELS))])
        return 100 * np.array(rows)

    def uas(self, method: str, transfer: Transfer, split: str) -> Array:
        """UA of each seed, %."""
        return np.asarray(np.nanmean(self.recalls(method, transfer, split), axis=1))

    def exchanged(self, method: str, transfer: Transfer) -> list[str]:
        """Two labels of the target's archive that look exchanged, by the method's first seed; or none."""
        truth, run = self.truth[transfer.target, "adapt"], self.runs[method, transfer]
        predicted = run[min(run)]["adapt"].argmax(axis=1)
        confusion = confusion_matrix(truth[truth >= 0], predicted[truth >= 0], len(LABELS))
        return [LABELS[c] for c in exchanged(confusion) or ()]

    def mean_uas(self, method: str, transfers: Sequence[Transfer], split: str) -> Array:
        """Mean over the transfers, for each seed that all of them have, %."""
        uas = [self.uas(method, transfer, split) for transfer in transfers]
        seeds = min(len(ua) for ua in uas)
        return np.asarray(np.mean([ua[:seeds] for ua in uas], axis=0))


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def summary(values: Array) -> dict[str, Any]:
    """Mean, deviation (0 with one seed) and all of the seeds."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"ua": float(values.mean()), "sd": deviation, "seeds": [round(float(v), 2) for v in values]}


def paired_gain(
    results: Results, method: str, other: str, transfers: Sequence[Transfer], split: str
) -> dict[str, float]:
    """UA of `method` minus UA of `other`, mean over transfers, with a 95 % interval over clips.

    Paired: both are scored on the same resampled clips, and so are transfers into the same target.
    """
    rng = np.random.default_rng(0)
    weights: dict[str, Array] = {}
    gains, samples = [], []
    for transfer in transfers:
        truth = results.classes(transfer, split)
        onehot = np.eye(len(LABELS))[truth][:, np.unique(truth)]
        if transfer.target not in weights:
            count = len(truth)
            weights[transfer.target] = rng.multinomial(count, np.full(count, 1 / count), ROUNDS).astype(float)
        difference = results.hits(method, transfer, split) - results.hits(other, transfer, split)
        gains.append((difference @ onehot / onehot.sum(axis=0)).mean())
        drawn = weights[transfer.target]
        # A class that a sample misses counts 0: rare, and the same for both methods.
        samples.append((drawn @ (difference[:, None] * onehot) / np.maximum(drawn @ onehot, 1)).mean(axis=1))
    low, high = np.quantile(np.mean(samples, axis=0), (0.025, 0.975))
    return {"gain": 100 * float(np.mean(gains)), "low": 100 * float(low), "high": 100 * float(high)}


def auc(scores: Array, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve; ties count half; NaN when one side is empty.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875
    """
    above, below = scores[positive], np.sort(scores[~positive])
    if not len(above) or not len(below):
        return float("nan")
    ranks = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(ranks.mean() / (2 * len(below)))


def trust(
    results: Results, recipe: str, transfer: Transfer
) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """LALM weight, LALM right, classifier right, of the labelled adapt clips, seed after seed."""
    truth = results.truth[transfer.target, "adapt"]
    known = truth >= 0
    runs = [run for _, run in sorted(results.runs[recipe, transfer].items())]
    lalm, classifier = (
        np.concatenate([(run[who].argmax(axis=1) == truth)[known] for run in runs])
        for who in ("lalm", "classifier")
    )
    return np.concatenate([run["lalm_weight"][known] for run in runs]), lalm, classifier


def trust_auc(results: Results, recipe: str, transfer: Transfer) -> float:
    """AUC of the LALM's weight: LALM right and classifier wrong, against the reverse; mean over seeds."""
    weight, lalm, classifier = trust(results, recipe, transfer)
    parts = len(results.runs[recipe, transfer])
    values = [
        auc(w[a != b], a[a != b])
        for w, a, b in zip(*(np.array_split(x, parts) for x in (weight, lalm, classifier)), strict=True)
    ]
    return float(np.mean(values))


def comparisons(
    results: Results, recipe: str, methods: Sequence[str], transfers: Sequence[Transfer]
) -> dict[str, Any]:
    """How the recipe stands against the LALM, the best baseline and the oracle, where these have results."""
    if not results.has(recipe, transfers):
        return {}
    done = [m for m in methods if results.has(m, transfers)]
    baselines = [m for m in done if m not in (*NO_BASELINES, recipe) and not m.endswith("int8")]
    out: dict[str, Any] = {}
    for split in SPLITS:
        means = {m: float(results.mean_uas(m, transfers, split).mean()) for m in done}
        part: dict[str, Any] = {}
        if "lalm" in done:
            part["over the LALM"] = paired_gain(results, recipe, "lalm", transfers, split)
            below = [
                t
                for t in transfers
                if results.uas(recipe, t, split).mean() < results.uas("lalm", t, split).mean()
            ]
            part["transfers below the LALM"] = [str(t) for t in below]
        if baselines:
            best = max(baselines, key=lambda m: means[m])
            part["over the best baseline"] = {"name": best} | paired_gain(
                results, recipe, best, transfers, split
            )
        if {"lalm", "oracle"} <= set(done):
            way = means["oracle"] - means["lalm"]
            share = 100 * (means[recipe] - means["lalm"]) / way if way > 0 else None
            part["share of the way from LALM to oracle, %"] = share
        out[split] = part
    found = {str(t): results.exchanged(recipe, t) for t in transfers}
    out["labels that look exchanged"] = {t: pair for t, pair in found.items() if pair}
    aucs = {str(t): trust_auc(results, recipe, t) for t in transfers}
    out["AUC of the trust weight"] = {"mean": float(np.mean(list(aucs.values())))} | aucs
    return out


def rows(results: Results, methods: Sequence[str], transfers: Sequence[Transfer]) -> list[dict[str, Any]]:
    """Scores of each transfer and method, for the JSON and the tables."""
    out = []
    for transfer in transfers:
        scores: dict[str, Any] = {}
        for method in methods:
            if (method, transfer) not in results.runs:
                continue
            runs = results.runs[method, transfer].values()
            scores[method] = {
                split: summary(results.uas(method, transfer, split))
                | {"recalls": results.recalls(method, transfer, split).mean(axis=0).round(2).tolist()}
                for split in SPLITS
            } | {"seconds": round(float(np.mean([run["seconds"] for run in runs])), 1)}
        out.append({"transfer": str(transfer), "methods": scores})
    return out


def means(results: Results, methods: Sequence[str], transfers: Sequence[Transfer]) -> dict[str, Any]:
    """Mean over the transfers, of the methods that have them all."""
    return {
        method: {split: summary(results.mean_uas(method, transfers, split)) for split in SPLITS}
        for method in methods
        if results.has(method, transfers)
    }


def markdown(document: Mapping[str, Any], titles: Mapping[str, str], split: str) -> str:
    """UA in %, mean ± deviation over seeds: transfers down, methods across; pooled sources below the mean."""
    methods = document["settings"]["methods"]
    lines = ["| | " + " | ".join(titles.get(m, m) for m in methods) + " |"]
    lines.append("| --- |" + " ---: |" * len(methods))
    named = [(row["transfer"], row["methods"]) for row in document["transfers"]]
    named.append(("**mean**", document["mean"]))
    named += [(row["transfer"], row["methods"]) for row in document["pooled"]]
    for name, scores in named:
        cells = [_cell(scores[m][split]) if m in scores else "" for m in methods]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(score: Mapping[str, Any]) -> str:
    return f"{score['ua']:.1f} ± {score['sd']:.1f}" if len(score["seeds"]) > 1 else f"{score['ua']:.1f}"


def baselines_markdown(document: Mapping[str, Any]) -> str:
    """Which teachers each baseline sees, and what it does."""
    lines = ["| baseline | sees | what it does |", "| --- | --- | --- |"]
    lines += [
        "| {title} | {sees} | {about} |".format(**row) for row in document["settings"]["baselines"].values()
    ]
    return "\n".join(lines)


def ablation_markdown(document: Mapping[str, Any], recipe: str) -> str:
    """Each change's mean over the transfers and what it costs against the recipe."""
    base = document["mean"].get(recipe)
    lines = [
        "| change | " + " | ".join(f"{split} | Δ" for split in SPLITS) + " |",
        "| --- |" + " ---: | ---: |" * len(SPLITS),
    ]
    for name, score in {recipe: base, **document["ablations"]}.items():
        if score is None or base is None:
            continue
        cells = [f"{_cell(score[s])} | {score[s]['ua'] - base[s]['ua']:+.1f}" for s in SPLITS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def finite(value: Any) -> Any:
    """The same document with null in place of NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def comparison_lines(parts: Mapping[str, Any]) -> list[str]:
    """The comparisons in words."""
    lines = []
    for split in SPLITS:
        for what, value in parts.get(split, {}).items():
            if isinstance(value, Mapping):
                name = f" ({value['name']})" if "name" in value else ""
                text = (
                    f"{value['gain']:+.1f} points, 95 % interval {value['low']:+.1f} to {value['high']:+.1f}"
                )
                lines.append(f"{split}: {what}{name}: {text}")
            elif isinstance(value, list):
                lines.append(f"{split}: {what}: {', '.join(value) or 'none'}")
            else:
                shown = "there is none" if value is None else f"{value:.0f}"
                lines.append(f"{split}: {what}: {shown}")
    for transfer, pair in parts.get("labels that look exchanged", {}).items():
        lines.append(f"labels of the target that look exchanged, by {transfer}: {' and '.join(pair)}")
    if parts:
        lines.append(
            f"AUC of the trust weight, mean of transfers: {parts['AUC of the trust weight']['mean']:.3f}"
        )
    return lines
