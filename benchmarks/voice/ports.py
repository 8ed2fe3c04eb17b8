"""The gate's numbers for other languages: files made of `vad.json`, which tests hold against it."""

from __future__ import annotations

import json
from pathlib import Path

from mifuse_runtime import vad

HELD = "`mifuse_runtime/vad.json`, which a test holds against this."
ROOT = Path(__file__).resolve().parents[2]


def ports() -> dict[Path, str]:
    """File -> what it holds."""
    return {
        ROOT / "runtime" / "web" / "mifuse" / "vad-weights.js": _javascript(),
        ROOT / "docs" / "examples" / "gate" / "weights.h": _cpp(),
    }


def write_ports() -> None:
    """Write them all anew."""
    for file, text in ports().items():
        file.write_text(text, encoding="utf-8")


def _javascript() -> str:
    about = f"The network of the voice-activity gate: {HELD}"
    return f"/** {about} */\nexport default {vad.weights().rstrip()};\n"


def _cpp() -> str:
    content = json.loads(vad.weights())
    inputs, units, second = len(content["hidden"]), len(content["hidden_bias"]), len(content["second_bias"])
    lists = {key: ",".join(map(_number, content[key])) for key in ("hidden_bias", "second_bias", "output")}
    rows = {
        key: ",\n".join("{" + ",".join(map(_number, row)) + "}" for row in content[key])
        for key in ("hidden", "second")
    }
    return (
        f"// The network of gate.h: {HELD}\n#pragma once\n\n"
        "namespace mifuse {\n\n"
        f"constexpr float OUTPUT_BIAS = {_number(content['output_bias'])};\n"
        f"constexpr float HIDDEN_BIAS[{units}] = {{{lists['hidden_bias']}}};\n"
        f"constexpr float SECOND_BIAS[{second}] = {{{lists['second_bias']}}};\n"
        f"constexpr float OUTPUT[{second}] = {{{lists['output']}}};\n"
        f"constexpr float HIDDEN[{inputs}][{units}] = {{\n{rows['hidden']}}};\n"
        f"constexpr float SECOND[{2 * units}][{second}] = {{\n{rows['second']}}};\n\n"
        "}  // namespace mifuse\n"
    )


def _number(value: float) -> str:
    text = f"{value:.5g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
