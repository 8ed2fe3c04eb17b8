"""On-device speech emotion recognition: a bundle in, emotions out. NumPy + ONNX Runtime only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mifuse_runtime.errors import AudioError, BundleError, MifuseError

if TYPE_CHECKING:
    from mifuse_runtime.recognizer import Prediction, Recognizer
    from mifuse_runtime.stream import Stream

__version__ = "0.1.0"
__all__ = ["AudioError", "BundleError", "MifuseError", "Prediction", "Recognizer", "Stream"]


def __getattr__(name: str) -> Any:
    # NumPy and ONNX Runtime are loaded on first use, so that `mifuse --help` and error handling stay fast.
    if name in ("Prediction", "Recognizer"):
        from mifuse_runtime import recognizer

        return getattr(recognizer, name)
    if name == "Stream":
        from mifuse_runtime.stream import Stream

        return Stream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
