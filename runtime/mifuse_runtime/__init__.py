"""On-device speech emotion recognition: a bundle in, emotions out. NumPy + ONNX Runtime only."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from mifuse_runtime.errors import AudioError, BundleError, MifuseError

if TYPE_CHECKING:
    from mifuse_runtime.decision import Prediction
    from mifuse_runtime.files import read_audio
    from mifuse_runtime.recognizer import Recognizer
    from mifuse_runtime.settings import NO_SPEECH, NOT_SURE
    from mifuse_runtime.speaker import Speaker
    from mifuse_runtime.stream import Stream
    from mifuse_runtime.timeline import Timeline

# ONNX Runtime 1.32 writes a device id and a database of events to the home and looks up a collector when it
# is imported; `disable_telemetry_events()` comes too late for that. This module is imported before it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.2.0"
__all__ = [
    "NOT_SURE",
    "NO_SPEECH",
    "AudioError",
    "BundleError",
    "MifuseError",
    "Prediction",
    "Recognizer",
    "Speaker",
    "Stream",
    "Timeline",
    "read_audio",
]

_HOMES = {
    "Prediction": "decision",
    "Recognizer": "recognizer",
    "Stream": "stream",
    "Timeline": "timeline",
    "Speaker": "speaker",
}
_HOMES |= {"read_audio": "files", "NOT_SURE": "settings", "NO_SPEECH": "settings"}


def __getattr__(name: str) -> Any:
    # NumPy and ONNX Runtime are loaded on first use, so that `mifuse --help` and error handling stay fast.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"mifuse_runtime.{_HOMES[name]}"), name)
