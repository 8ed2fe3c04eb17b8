"""What `export_bundle` cannot be asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from mifuse_export.budget import Budget
from mifuse_export.errors import ExportError
from mifuse_export.parity import Floats


def check_formats(
    formats: Sequence[str], known: Collection[str], *, int8: bool, fp16: bool, budget: Budget | None
) -> None:
    """Refuse formats that are not known, and what does not go together.

    Raises:
        ExportError: as said.
    """
    unknown = [name for name in formats if name not in known]
    if unknown:
        raise ExportError(f"unknown format {unknown[0]!r}: use {' or '.join(known)}")
    if budget and not int8:
        raise ExportError(f"the budget of {budget} is for an int8 model: set int8, too")
    if fp16 and "openvino" not in formats:
        raise ExportError("fp16 is a precision of OpenVINO's files: give --format openvino, too")


def check_clips(clips: Sequence[Floats], *, needed: bool) -> None:
    """Refuse clips that are no samples, and none where they are `needed`.

    Raises:
        ExportError: as said.
    """
    if needed and not clips:
        raise ExportError("int8 needs calibration clips, there are none: pass a manifest with --calibration")
    for i, clip in enumerate(clips):
        if clip.ndim != 1 or clip.dtype != np.float32 or not clip.size or not np.isfinite(clip).all():
            raise ExportError(
                f"calibration clip {i} is {clip.dtype} {clip.shape}: finite float32 samples (n,) are needed"
            )
