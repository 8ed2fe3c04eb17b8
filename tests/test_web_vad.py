"""The gate of JavaScript and of C++ is the Python one: the same numbers, the same weights."""

from __future__ import annotations

from benchmarks.voice.ports import ports


def test_the_weights_are_those_of_python() -> None:
    for file, text in ports().items():
        assert file.read_text(encoding="utf-8") == text, f"{file}: run benchmarks.voice.ports.write_ports()"
