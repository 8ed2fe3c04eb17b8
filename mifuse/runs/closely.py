"""What a report says clip by clip and speaker by speaker: where to listen, and for whom it is worst."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.manifest import Clip
from mifuse.runs.page import Html, table, text

Floats = NDArray[np.float64]
LEAST = 12  # clips that can be played
MOST_SPEAKERS = 30


def players(
    clips: Sequence[Clip | None], probs: Mapping[str, Floats], labels: Sequence[str], folder: Path
) -> str:
    """A table of the clips that the student is least certain of, each with a player; empty without any.

    The page refers to the recordings where they are: no voice is copied into it.

    Args:
        clips: of each row of `probs`; None where the manifest has it no more.
        probs: who -> (N, C); NaN where it says nothing.
        folder: of the page.
    """
    student = probs.get("student", np.zeros((0, len(labels))))
    sure: NDArray[np.bool_] = np.asarray(np.isfinite(student).all(axis=1))
    known = [row for row, clip in enumerate(clips) if clip and row < len(sure) and sure[row]]
    known.sort(key=lambda row: float(student[row].max()))
    rows: list[list[object]] = []
    for row in known[:LEAST]:
        clip = clips[row]
        assert clip is not None
        said = [_said(found[row], labels) for found in probs.values()]
        rows.append([clip.name, Html(_player(clip, folder)), *said])
    return table(["clip", "listen", *probs], rows) if rows else ""


def _player(clip: Clip, folder: Path) -> str:
    start = "" if clip.start is None else f"{clip.start:g}"
    end = "" if clip.end is None else f",{clip.end:g}"
    fragment = f"#t={start or '0'}{end}" if start or end else ""
    path = os.path.relpath(clip.path, folder).replace(os.sep, "/")
    return f'<audio controls="" preload="none" src="{text(quote(path) + fragment)}"></audio>'


def _said(probs: Floats, labels: Sequence[str]) -> str:
    if not np.isfinite(probs).all():
        return "–"
    top = int(probs.argmax())
    return f"{labels[top]} {probs[top]:.2f}"


def speakers(
    names: Sequence[str | None], student: Floats, labels: Sequence[str], truth: NDArray[np.int64] | None
) -> str:
    """A row for each speaker: clips, what the student says most, how sure it is, how right where labels are.

    Args:
        names: of each clip's speaker.
        student: (N, C).
        truth: (N,) class of each clip, -1 without a label; None: no labels.
    """
    counts = Counter(name for name in names if name)
    if len(counts) < 2:
        return ""
    rows = []
    for name, count in counts.items():
        mine = [row for row, who in enumerate(names) if who == name and np.isfinite(student[row]).all()]
        if not mine:
            continue
        said = student[mine].argmax(axis=1)
        most = int(np.bincount(said, minlength=len(labels)).argmax())
        sure = float(student[mine].max(axis=1).mean())
        share = 100 * float((said == most).mean())
        row: list[object] = [name, count, f"{labels[most]} ({share:.0f} %)", f"{sure:.2f}"]
        right = None
        if truth is not None and (labelled := truth[mine] >= 0).any():
            right = 100 * float((said == truth[mine])[labelled].mean())
        rows.append((right, sure, [*row, "–" if right is None else f"{right:.0f}"]))
    # Who is worst served comes first.
    rows.sort(key=lambda row: (row[0] is None, row[0] or 0.0, row[1]))
    header = ["speaker", "clips", "said most", "mean confidence", "right, %"]
    width = len(header) if truth is not None else len(header) - 1
    return table(header[:width], [cells[:width] for _, _, cells in rows[:MOST_SPEAKERS]])
