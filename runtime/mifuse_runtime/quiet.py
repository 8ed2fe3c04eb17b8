"""OpenVINO without its telemetry; loaded only where that engine is asked for."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from mifuse_runtime.errors import MifuseError


def import_openvino() -> Any:
    """The package, which reports itself over the network through another one, and works without that.

    Raises:
        MifuseError: it is not installed.
    """
    hidden = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MifuseError(
            "engine 'openvino' is not installed: pip install 'mifuse-runtime[openvino]' or 'mifuse[export]'"
        ) from error
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]
