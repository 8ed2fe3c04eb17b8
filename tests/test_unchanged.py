"""The comparison with an earlier commit: it must see what differs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.unchanged import compare, digests, option_lines


def test_files_that_differ_are_named(tmp_path: Path) -> None:
    for name, weights in (("before", b"1"), ("now", b"2")):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "same.json").write_bytes(b"{}")
        (tmp_path / name / "sub" / "model").write_bytes(weights)
        (tmp_path / name / "timing.json").write_bytes(weights)  # never alike
    (tmp_path / "now" / "more").touch()
    before, now = digests(tmp_path / "before"), digests(tmp_path / "now")
    assert compare("student", before, before) == []
    first, second = compare("student", before, now)
    assert first.startswith("student of more: nothing before")
    assert first.endswith("now") and second.startswith("student of sub/model: ['6b86")


def test_options_are_those_of_the_list() -> None:
    text = (
        "Like --these of another.\n\nOptions:\n  --size xs|s  As --recipe says.\n  -o, --out PATH  Where.\n"
    )
    assert option_lines(text) == ["  --size xs|s  As --recipe says.", "  -o, --out PATH  Where."]
