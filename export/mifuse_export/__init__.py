"""Student to bundle: ONNX and OpenVINO, float and int8, each checked against PyTorch."""

from __future__ import annotations

import mifuse_runtime  # noqa: F401  # first: it keeps ONNX Runtime from reporting itself
from mifuse_export.bundle import export_bundle
from mifuse_export.errors import ExportError
from mifuse_export.folder import check_out
from mifuse_export.int8 import Probe
from mifuse_export.settings import Budget, ExportConfig, OverBudgetError

__all__ = ["Budget", "ExportConfig", "ExportError", "OverBudgetError", "Probe", "check_out", "export_bundle"]
