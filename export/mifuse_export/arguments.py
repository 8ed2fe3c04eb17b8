"""What `export_bundle` cannot be asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mifuse_export.errors import ExportError
from mifuse_export.parity import Floats


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
