"""The benchmark of an hour's call: what it measures is a timeline with speech in it."""

from pathlib import Path

import pytest

from benchmarks import hour
from tests.bundles import make_bundle


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_minute(tmp_path: Path) -> None:
    row = hour.measure(make_bundle(tmp_path / "bundle"), 8000, 0.5, runs=1)
    assert row["rate"] == 8000 and row["minutes"] == pytest.approx(0.5)
    assert row["segments"] >= 1 and 0 < row["speech_minutes"] <= 0.5
    assert 0 < row["timeline_s"] < 60 and 20 < row["peak_mb"] < 1000
