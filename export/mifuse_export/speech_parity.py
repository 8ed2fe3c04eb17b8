"""The log odds of speech that graphs give beside those of NumPy's gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mifuse_export.engines import log_odds
from mifuse_export.errors import ExportError
from mifuse_export.parity import Floats, parity_batches
from mifuse_runtime import vad
from mifuse_runtime.bundle import Bundle

PARITY = 0.05  # largest difference of log odds: 1 % of a probability; students measured 2e-4


def check_speech(folder: Path, bundle: Bundle, clips: Sequence[Floats]) -> float:
    """Hold the log odds of every whole graph, those of phones among them, to NumPy's; the largest difference.

    Raises:
        ExportError: it is above `PARITY`.
    """
    graphs = {
        name: log_odds(folder, bundle, engine, precision)
        for precision, files in bundle.models.items()
        for engine, name in files.items()
    }
    worst = 0.0
    for batch in parity_batches(clips, bundle.sample_rate):
        wanted = [_numpy(samples, bundle.sample_rate) for samples in batch]
        for name, graph in graphs.items():
            for row, expected in zip(graph(batch), wanted, strict=True):
                difference = float(np.abs(row[: expected.size] - expected).max(initial=0.0))
                if not difference <= PARITY:  # NaN fails too
                    raise ExportError(
                        f"speech of {name} differs from NumPy's by {difference:.2g} on {batch.shape[1]} "
                        "samples: check that `frontend.bins` are the rows of its spectrum"
                    )
                worst = max(worst, difference)
    return worst


def _numpy(samples: Floats, rate: int) -> Floats:
    """Log odds of the whole frames of samples (n,), (k,)."""
    frames = vad.framed(samples, rate)
    return vad.network(vad.log_power(frames), None)[0] if len(frames) else np.zeros(0, np.float32)
