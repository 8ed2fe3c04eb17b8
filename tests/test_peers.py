"""The benchmark beside others: its statistics, a worker, and the page that shows its result."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import environments, worker
from benchmarks.peers.statistics import differences, percentiles
from tests.bundles import make_bundle, speech

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "peers.json"
DATA = json.loads((ROOT / "benchmarks" / "peers" / "peers.json").read_text(encoding="utf-8"))


def result(factor: float = 1.0) -> dict:
    times = percentiles([factor * value for value in np.linspace(1, 2, 40)])
    keys = [f"{seconds} s, {how}, {clock}" for seconds in (1, 3, 10) for how in ("in turn", "alone")
            for clock in ("wall", "cpu")]  # fmt: skip
    facts = {"first_s": 0.1, "peak_mb": 60.0, "installed_mb": 100.0}
    return {"rows": [{"name": "ours", "ms": dict.fromkeys(keys, times), **facts},
                     {"name": "theirs", "left out": "no network", "ms": {}}]}  # fmt: skip


def test_an_interval_holds_the_median_in_19_of_20_runs() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = percentiles(rng.lognormal(size=30))["p50_interval"]
        held += low <= 1 <= high
    assert 0.92 <= held / 400 <= 1
    assert percentiles([3.0])["p50_interval"] == [3.0, 3.0]


def test_differences_are_those_outside_both_intervals() -> None:
    assert differences(result(), result(1.05)) == ["12 of 12 times are within each other's 95 % intervals"]
    lines = differences(result(), result(3.0))
    assert len(lines) == 13 and "(3.00 times)" in lines[0]


def test_a_worker_is_asked_in_turn(tmp_path: Path) -> None:
    np.save(tmp_path / "speech.npy", speech(10.0))
    make_bundle(tmp_path / "bundle")
    peer = peers.Peer(Path(sys.executable), "mifuse", f"{tmp_path / 'bundle'}:fp32", tmp_path / "speech.npy")
    try:
        assert 0 < peer.start["load_s"] <= peer.start["first_s"] and peer.start["peak_mb"] > 20
        found = peers.measure({"ours": peer}, 1, budget=0.0)["ours"]
    finally:
        peer.close()
    for how in ("in turn", "alone"):
        assert found[how]["wall"]["calls"] == peers.FEWEST
        assert found[how]["cpu"]["p50"] >= 0 and 0 < found[how]["wall"]["p50"] <= found[how]["wall"]["p99"]


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    np.save(tmp_path / "speech.npy", speech(0.5))
    with pytest.raises(RuntimeError, match="is not a bundle"):
        peers.Peer(Path(sys.executable), "mifuse", f"{tmp_path}:int8", tmp_path / "speech.npy")


def test_the_data_file_names_what_there_is() -> None:
    for row in DATA:
        assert row["env"] in environments.NEEDS and row["call"] in worker.CALLS
        assert row["licence"] and row["does"]
    assert peers.table(result()).splitlines()[-1] == "| theirs | " + "- | " * 8 + "no network |"


def test_the_page_shows_the_result() -> None:
    page = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    assert peers.table(found) in page
    assert found["provenance"]["command"].startswith("python -m benchmarks.peers")
    assert re.fullmatch(r"[0-9a-f]{40}.*", found["provenance"]["commit"])
