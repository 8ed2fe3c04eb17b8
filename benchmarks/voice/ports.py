"""The gate's numbers for other languages: files made of `vad.json`, which tests hold against it."""

from __future__ import annotations

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
    hidden, hidden_bias, output, output_bias = vad.layers()
    rows = ",\n".join("{" + ",".join(map(_number, row)) + "}" for row in hidden)
    lists = [",".join(map(_number, values)) for values in (hidden_bias, output)]
    return (
        f"// The network of gate.h: {HELD}\n#pragma once\n\n"
        "namespace mifuse {\n\n"
        f"constexpr unsigned INPUTS = {len(hidden)}, UNITS = {len(output)};\n"
        f"constexpr float OUTPUT_BIAS = {_number(output_bias)};\n"
        f"constexpr float HIDDEN_BIAS[] = {{{lists[0]}}};\n"
        f"constexpr float OUTPUT[] = {{{lists[1]}}};\n"
        f"constexpr float HIDDEN[][UNITS] = {{\n{rows}}};\n\n"
        "}  // namespace mifuse\n"
    )


def _number(value: float) -> str:
    text = f"{value:.5g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
