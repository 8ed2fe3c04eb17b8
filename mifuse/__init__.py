"""Speech emotion recognition in your domain, without labels: adapt a compact student by MI-Fuse.

The names below are stable; docs/python-api.md shows them at work. Each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mifuse_runtime import __version__

if TYPE_CHECKING:
    from mifuse.adaptation import adapt
    from mifuse.clips.manifest import read_manifest
    from mifuse.clips.preparation import prepare
    from mifuse.evaluation import evaluate
    from mifuse.exporting.student import export_student
    from mifuse.fusion.recipes import RECIPES, AdaptConfig
    from mifuse.fusion.weighting import fuse
    from mifuse.models.classifier import load_model, train_classifier
    from mifuse.models.student import Student
    from mifuse.teachers.draws import load_draws
    from mifuse_export.settings import ExportConfig

__all__ = [
    "RECIPES",
    "AdaptConfig",
    "ExportConfig",
    "Student",
    "__version__",
    "adapt",
    "evaluate",
    "export_student",
    "fuse",
    "load_draws",
    "load_model",
    "prepare",
    "read_manifest",
    "train_classifier",
]

_HOMES = {
    "read_manifest": "mifuse.clips.manifest",
    "prepare": "mifuse.clips.preparation",
    "train_classifier": "mifuse.models.classifier",
    "load_model": "mifuse.models.classifier",
    "Student": "mifuse.models.student",
    "load_draws": "mifuse.teachers.draws",
    "fuse": "mifuse.fusion.weighting",
    "AdaptConfig": "mifuse.fusion.recipes",
    "RECIPES": "mifuse.fusion.recipes",
    "adapt": "mifuse.adaptation",
    "evaluate": "mifuse.evaluation",
    "ExportConfig": "mifuse_export.settings",
    "export_student": "mifuse.exporting.student",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
