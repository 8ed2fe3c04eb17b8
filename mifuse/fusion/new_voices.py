"""How a student does on new voices: a second one is fitted without some speakers and asked about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mifuse.fusion.prosody import fit_prosody
from mifuse.fusion.recipes import held_out_steps
from mifuse.models.features import Features
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer, predict
from mifuse.voices.clustering import clusterings

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

SHARE = 0.3  # of the clips, at least, that the second student never gets
FEWEST = 48  # clips of an archive from which it is worth the time


def voices_of(speakers: Sequence[str | None], statistics: Array, labels: Array, seed: int = 0) -> Indices:
    """Speaker of each clip as a number, (N,); clips that name none are grouped by similar voices.

    Args:
        statistics: of each clip's voice, (N, D).
        labels: soft labels, (N, C), that keep emotions from being taken for voices.
    """
    names = np.array([name or "" for name in speakers])
    groups = np.unique(names, return_inverse=True)[1]
    unnamed = np.flatnonzero(names == "")
    found = clusterings(statistics[unnamed], labels[unnamed], seed) if len(unnamed) else []
    if found:
        groups[unnamed] = groups.max() + 1 + found[-1]  # the finest
    return np.unique(groups, return_inverse=True)[1]


def held_out(voices: Indices, seed: int = 0) -> Indices:
    """Clips of whole voices, drawn at random until `SHARE` is reached; none where that leaves too little."""
    if len(voices) < FEWEST:
        return np.empty(0, dtype=np.int64)
    rows = np.empty(0, dtype=np.int64)
    for voice in np.random.default_rng(seed).permutation(int(voices.max()) + 1):
        rows = np.concatenate([rows, np.flatnonzero(voices == voice)])
        if len(rows) >= SHARE * len(voices):
            break
    return np.sort(rows) if len(rows) <= 0.6 * len(voices) else np.empty(0, dtype=np.int64)


def predict_held_out(
    student: Student,
    features: Features,
    labels: Array,
    rows: Indices,
    *,
    config: FitConfig,
    seed: int = 0,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Array:
    """Probabilities of the clips `rows`, (R, C), by a student that is fitted to all others; R of them.

    Args:
        student: before its first step; it is trained in place.
        labels: (N, C) that it is fitted to.
        progress: called with the record of each epoch.
    """
    short = replace(config, steps=held_out_steps(config))
    trainer = Trainer(student, features, short, seed, left_out=rows)
    while trainer.epoch < trainer.epochs:
        record = trainer.run_epoch(labels)
        progress(record | {"step": config.steps + record["step"]})
    learnt = np.setdiff1d(np.arange(len(labels)), rows)
    fit_prosody(trainer.average.cpu(), features, labels, config.balance, learnt)
    return predict(trainer.average.eval(), features.anonymous())[rows]
