"""Student to bundle: ONNX and OpenVINO, float and int8, each checked against PyTorch."""

from __future__ import annotations

import mifuse_runtime  # noqa: F401  # first: it keeps ONNX Runtime from reporting itself
from mifuse_export.budget import Budget, OverBudgetError
from mifuse_export.bundle import Probe, export_bundle
from mifuse_export.errors import ExportError
from mifuse_export.folder import check_out

__all__ = ["Budget", "ExportError", "OverBudgetError", "Probe", "check_out", "export_bundle"]
