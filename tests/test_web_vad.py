"""The gate of the JavaScript module is the Python one: the same numbers, the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import mifuse_runtime


def test_the_weights_are_those_of_python() -> None:
    runtime = Path(mifuse_runtime.__file__).parent
    ours = json.loads((runtime / "vad.json").read_text(encoding="utf-8"))
    theirs = (runtime.parent / "web" / "mifuse" / "vad-weights.js").read_text(encoding="utf-8")
    assert json.loads(theirs.partition("export default ")[2].rstrip(";\n")) == ours
