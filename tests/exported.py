"""The bundle of a real student with random weights: what an export can write, for tests that only read it."""

from __future__ import annotations

from pathlib import Path

import torch

from mifuse.models.frontend import HOP, MEL_RANGE, N_MELS
from mifuse.models.student import Student
from mifuse_export import ExportConfig, export_bundle
from mifuse_runtime.settings import FrontEnd
from tests.bundles import speech
from tests.test_export import lived_in

FRONT = FrontEnd(HOP, N_MELS, *MEL_RANGE, folded=True)
CLIPS = [speech(0.8 + 0.1 * (seed % 7), seed=seed) for seed in range(20)]


def student() -> Student:
    """The same one each time."""
    torch.manual_seed(0)
    made = lived_in(Student(size="xs"))
    assert isinstance(made, Student)
    return made.eval()


def export_known(folder: Path) -> Path:
    """Models and bodies of both engines and precisions; it can know speakers."""
    model = student()
    return export_bundle(
        model,
        folder,
        ExportConfig(int8=True, formats=("onnx", "openvino"), max_drop=50),
        labels=model.labels,
        calibration=CLIPS[::3],
        frontend=FRONT,
        speaker=model.speaker_head(),
    )
