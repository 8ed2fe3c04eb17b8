"""Pictures of a report as SVG text, one function each. Matplotlib without a display."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Who predicts -> colour; the same everywhere. Distinct for colour-blind readers (Okabe and Ito 2008).
COLOURS = {
    "LALM": "#E69F00",
    "classifier": "#56B4E9",
    "average": "#999999",
    "fused": "#CC79A7",
    "student": "#0072B2",
    "student int8": "#009E73",
    "labels": "#444444",
}
INK, GRID = "#374151", "#E5E7EB"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: smaller, searchable, and in the page's font
    "svg.hashsalt": "mifuse",
    "text.parse_math": False,  # a label may hold a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9CA3AF",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def draw(
    width: float, height: float, panels: int, paint: Callable[[Sequence[Any]], None], **grid: Any
) -> str:
    """SVG of `panels` axes side by side, painted by `paint`; sizes in inches."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.subplots(1, panels, squeeze=False, **grid)[0])
        text = io.StringIO()
        about = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, bbox_inches="tight", metadata=about)
    svg = text.getvalue()
    return compact(svg[svg.index("<svg") :])


def compact(svg: str) -> str:
    """The same picture in a fifth of the lines, so that another number changes few: one a bar, line or text.

    >>> compact('<svg> <g id="patch_1">\\n <path d="M 1.23456 2 \\nL 3 4"/>\\n </g>\\n</svg>')
    '<svg>\\n<g id="patch_1"><path d="M 1.23 2 L 3 4"/></g></svg>'
    """
    svg = re.sub(r"\s*\n\s*", " ", svg)
    svg = re.sub(r"> +<", "><", svg)
    # Not in a transform: 1 / 64 is a scale there.
    svg = re.sub(r"(?<![\d.(#\w])(-?\d+\.\d{2})\d+", r"\1", svg)
    return re.sub(r"<g id=", "\n<g id=", svg)


def colour(who: str) -> str:
    """Colour of a predictor, grey for one without a colour of its own."""
    return COLOURS.get("LALM" if who.endswith("LALM") else who, "#777777")


def confusions(matrices: Mapping[str, Sequence[Sequence[int]]], labels: Sequence[str]) -> str:
    """Confusion matrices side by side: rows are labels, shades and numbers % of the row."""

    def paint(axes: Sequence[Any]) -> None:
        for axis, (who, counts) in zip(axes, matrices.items(), strict=True):
            table = np.asarray(counts, float)
            share = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
            axis.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="equal")
            for row, column in np.ndindex(*share.shape):
                ink = "white" if share[row, column] > 55 else INK
                axis.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=ink)
            axis.set_title(who)
            axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
            axis.set_yticks(range(len(labels)), labels)
            axis.set_xlabel("predicted")
            axis.grid(False)
            axis.tick_params(length=0)
        axes[0].set_ylabel("label")

    return draw(2.5 * len(matrices) + 0.6, 3.6, len(matrices), paint, sharey=True)


def weights(weight: Floats, right: Mapping[str, NDArray[np.bool_]]) -> str:
    """Where the fusion weights lie, and how often LALM and classifier are right at each weight.

    Args:
        weight: share of the LALM in each fused label, (N,) in 0..1.
        right: who -> whether its prediction is the label, (N,); empty when there are no labels.
    """

    def paint(axes: Sequence[Any]) -> None:
        axes[0].hist(weight, bins=30, color=colour("fused"), alpha=0.85)
        axes[0].set(title="Weights", xlabel="share of the LALM in the fused label", ylabel="clips")
        if not right:
            return
        # Bins of equal count: weights crowd together, and equal widths would leave bins with two clips.
        groups = [part for part in np.array_split(np.argsort(weight, kind="stable"), 8) if len(part)]
        centres = [float(weight[part].mean()) for part in groups]
        for who, hits in right.items():
            rates = [100 * float(hits[part].mean()) for part in groups]
            errors = [100 * float(hits[part].std()) / np.sqrt(len(part)) for part in groups]
            axes[1].errorbar(centres, rates, errors, marker="o", capsize=3, color=colour(who), label=who)
        axes[1].set(
            title="Right at that weight", xlabel="share of the LALM, eighths of the clips", ylabel="%"
        )
        axes[1].set_ylim(0, 100)
        axes[1].legend()

    return draw(8.6, 3.0, 2 if right else 1, paint)


def curves(history: Sequence[Mapping[str, Any]], classes: int) -> str:
    """Training curves over epochs: losses, predicted-class entropy, validation UA; what is there of them."""
    panels: list[tuple[str, str, tuple[str, ...]]] = [
        ("Loss", "nats", ("loss", "cross_entropy", "diversity")),
        ("Entropy of the predicted classes", "nats", ("entropy",) if classes else ()),
        ("Validation", "UA, %", ("validation_ua", "train_ua")),
        ("Validation of dimensions", "CCC", ("validation_ccc",)),
    ]
    kept = [(title, unit, [key for key in keys if _has(history, key)]) for title, unit, keys in panels]
    kept = [panel for panel in kept if panel[2]]
    epochs = [row.get("epoch", index + 1) for index, row in enumerate(history)]
    shades = ("#0072B2", "#D55E00", "#009E73")

    def paint(axes: Sequence[Any]) -> None:
        for axis, (title, unit, keys) in zip(axes, kept, strict=True):
            for key, shade in zip(keys, shades, strict=False):
                values = [row.get(key) if row.get(key) is not None else np.nan for row in history]
                axis.plot(epochs, values, marker="o", ms=3, color=shade, label=key.replace("_", " "))
            if keys == ["entropy"]:
                axis.axhline(np.log(classes), color="#9CA3AF", ls="--", label="all classes alike")
                axis.set_ylim(0, np.log(classes) * 1.1)
            axis.set(title=title, xlabel="epoch", ylabel=unit)
            axis.legend(fontsize=9)

    return draw(4.3 * len(kept), 3.0, len(kept), paint) if kept else ""


def _has(history: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(isinstance(row.get(key), int | float) for row in history)


def reliability(predictions: Mapping[str, tuple[Floats, NDArray[np.bool_]]]) -> str:
    """How often a prediction of each confidence is right; on the diagonal, confidence equals accuracy.

    Args:
        predictions: who -> confidence (N,) in 0..1, and whether it was right (N,).
    """

    def paint(axes: Sequence[Any]) -> None:
        axis = axes[0]
        axis.plot([0, 1], [0, 1], color="#9CA3AF", ls="--")
        for who, (confidence, hits) in predictions.items():
            bins = np.clip((confidence * 10).astype(int), 0, 9)
            filled = [index for index in range(10) if (bins == index).sum() >= 5]
            x = [float(confidence[bins == index].mean()) for index in filled]
            y = [float(hits[bins == index].mean()) for index in filled]
            axis.plot(x, y, marker="o", ms=4, color=colour(who), label=who)
        axis.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    return draw(5.4, 3.6, 1, paint)


def priors(shares: Mapping[str, Sequence[float]], labels: Sequence[str]) -> str:
    """Mean predicted distribution of each predictor, a group of bars per emotion."""

    def paint(axes: Sequence[Any]) -> None:
        width = 0.8 / len(shares)
        for index, (who, values) in enumerate(shares.items()):
            at = np.arange(len(labels)) - 0.4 + (index + 0.5) * width
            axes[0].bar(at, 100 * np.asarray(values, float), 0.92 * width, color=colour(who), label=who)
        axes[0].axhline(100 / len(labels), color="#9CA3AF", ls="--")
        axes[0].set_xticks(range(len(labels)), labels)
        axes[0].set_ylabel("% of clips")
        axes[0].grid(False, axis="x")
        axes[0].legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    return draw(8.0, 2.8, 1, paint)
