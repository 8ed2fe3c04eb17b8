"""Student to bundle: ONNX and OpenVINO, float and int8, each checked against PyTorch before it is handed out."""

from __future__ import annotations

from mifuse_export.bundle import Probe, export_bundle
from mifuse_export.errors import ExportError

__all__ = ["ExportError", "Probe", "export_bundle"]
