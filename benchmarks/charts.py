"""Pictures of `benchmarks.transfers`, SVG text in the style of the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mifuse.runs.pictures import colour, draw

NAMES = {"adapt": "own archive", "test": "new speakers", "known": "new speakers, known voices"}


def bars(document: Mapping[str, Any], titles: Mapping[str, str], split: str) -> str:
    """UA of each method on each transfer, the mean last; whiskers are the deviation over seeds."""
    rows = [(row["transfer"].replace(">", " → "), row["methods"]) for row in document["transfers"]]
    rows.append(("mean", document["mean"]))
    methods = [m for m in document["settings"]["methods"] if any(m in scores for _, scores in rows)]

    def paint(axes: Sequence[Any]) -> None:
        width = 0.84 / len(methods)
        for index, method in enumerate(methods):
            at = [i for i, (_, scores) in enumerate(rows) if method in scores]
            scores = [rows[i][1][method][split] for i in at]
            axes[0].bar(
                np.array(at) - 0.42 + (index + 0.5) * width,
                [score["ua"] for score in scores],
                0.92 * width,
                yerr=[score["sd"] for score in scores],
                error_kw={"lw": 0.8},
                color=_colour(method, index),
                label=titles.get(method, method),
            )
        axes[0].set_xticks(range(len(rows)), [name for name, _ in rows])
        axes[0].set_ylabel(f"UA, {NAMES[split]}, %")
        axes[0].set_ylim(20, None)
        axes[0].grid(False, axis="x")
        axes[0].legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    return draw(1.6 * len(rows) + 2.0, 3.6, 1, paint)


def field(rows: Sequence[Mapping[str, Any]]) -> str:
    """UA of each teacher and of the students, a line a cell: on the own archive, and on new speakers.

    Args:
        rows: cells of `benchmarks.field`; students of the same transfer, draws and archive share a line.
    """
    lines: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        key = row["transfer"].replace(">", " → "), row["draws"].partition("_")[0], row["archive"]
        lines.setdefault(key, {})[row["method"]] = row
    order = sorted(lines, key=lambda key: next(iter(lines[key].values()))["test"]["LALM"][0])
    shown = [("LALM", "default", "s"), ("average", "default", "D"), ("paper", "paper", "^")]

    def paint(axes: Sequence[Any]) -> None:
        for axis, split in zip(axes, ("adapt", "test"), strict=True):
            for name, method, marker in [*shown, ("student", "default", "o")]:
                who = "student" if name == "paper" else name
                points = [
                    (lines[key][method][split][who][0], y)
                    for y, key in enumerate(order)
                    if method in lines[key]
                ]
                looks = {"color": colour("fused" if name == "paper" else name), "marker": marker}
                label = "MI-Fuse, paper" if name == "paper" else name
                axis.scatter(*zip(*points, strict=True), s=36, label=label, **looks) if points else None
            axis.set(xlabel=f"UA, {NAMES[split]}, %", xlim=(20, 100))
        axes[0].set_yticks(range(len(order)), [f"{one}, {draws}" for one, draws, _ in order])
        axes[-1].legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    return draw(9.0, 1.0 + 0.3 * len(order), 2, paint, sharey=True)


def _colour(method: str, index: int) -> str:
    known = {
        "lalm": "LALM",
        "default": "student",
        "default int8": "student int8",
        "lalm-only": "fused",
        "oracle": "labels",
    }
    shade = colour(known.get(method, method))
    others = ("#D55E00", "#F0E442", "#8C6BB1", "#A6761D", "#66A61E", "#1B9E77", "#E7298A")
    return others[index % len(others)] if shade == colour("") else shade


def trust(curves: Mapping[str, tuple[Any, Any, Any]]) -> str:
    """How often each teacher is right at each LALM weight, a panel per transfer.

    Args:
        curves: transfer -> weight (N,), whether the LALM is right (N,), whether the classifier is.
    """

    def paint(axes: Sequence[Any]) -> None:
        for axis, (name, (weight, lalm, classifier)) in zip(axes, curves.items(), strict=True):
            groups = [part for part in np.array_split(np.argsort(weight, kind="stable"), 8) if len(part)]
            centres = [float(weight[part].mean()) for part in groups]
            for who, right in (("LALM", lalm), ("classifier", classifier)):
                rates = [100 * float(right[part].mean()) for part in groups]
                axis.plot(centres, rates, marker="o", ms=4, color=colour(who), label=who)
            axis.set(title=name.replace(">", " → "), xlabel="weight of the LALM")
            axis.set_ylim(0, 100)
        axes[0].set_ylabel("right, %; eighths of the clips")
        axes[0].legend(fontsize=9)

    return draw(2.7 * len(curves), 2.8, len(curves), paint, sharey=True)


def compression(points: Sequence[Mapping[str, Any]]) -> str:
    """UA of int8 students on new speakers and on their own archive, against their size and their time.

    Args:
        points: means of `benchmarks.compression`; those of start `student` and `pruned` are joined by a line.
    """
    looks = {"pruned": ("student", "o"), "random": ("LALM", "s"), "adapted": ("classifier", "^")}

    def paint(axes: Sequence[Any]) -> None:
        for axis, (key, unit) in zip(
            axes,
            (("int8_kb", "int8 file, kB"), ("int8_p50_ms", "3 s of audio, one thread, p50 ms")),
            strict=True,
        ):
            for start, (who, marker) in looks.items():
                chosen = [
                    p
                    for p in points
                    if p["start"] == start or (p["start"] == "student" and start == "pruned")
                ]
                if not chosen:
                    continue
                for split, line in (("adapt", "--"), ("test", "-")):
                    axis.plot(
                        [p[key] for p in chosen],
                        [p["int8"][split] for p in chosen],
                        marker=marker,
                        ms=5,
                        ls=line if start == "pruned" else "none",
                        mfc=None if split == "test" else "white",
                        color=colour(who),
                        label=f"{start}, {'new speakers' if split == 'test' else 'own archive'}",
                    )
                if start == "pruned":
                    for p in chosen:
                        axis.annotate(
                            p["size"],
                            (p[key], p["int8"]["test"]),
                            (0, 6),
                            textcoords="offset points",
                            ha="center",
                            fontsize=9,
                        )
            axis.set_xlabel(unit)
        axes[0].set_ylabel("UA, %")
        axes[-1].legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    return draw(9.0, 3.4, 2, paint, sharey=True)
