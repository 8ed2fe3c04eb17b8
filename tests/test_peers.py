"""The benchmark beside others: its statistics, a worker, and the page that shows its result."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import environments, worker
from benchmarks.peers.nets import small
from benchmarks.peers.table import differences, table
from mifuse.exporting.timing import summary
from tests.browser import needs_web
from tests.bundles import make_bundle, speech

PYTHON = [sys.executable, str(Path(worker.__file__))]
ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "peers.json"
DATA = json.loads((ROOT / "benchmarks" / "peers" / "peers.json").read_text(encoding="utf-8"))


def result(factor: float = 1.0, rounds: int = 5) -> dict:
    rng = np.random.default_rng(0)
    times = asdict(summary([factor * rng.lognormal(0.01 * place, 0.05, 20) for place in range(rounds)]))
    keys = [f"{seconds} s, {how}, {clock}" for seconds in (1, 3, 10) for how in ("in turn", "alone")
            for clock in ("wall", "cpu")]  # fmt: skip
    facts = {"first_s": 0.1, "peak_mb": 60.0, "installed_mb": 100.0}
    return {"rows": [{"name": "ours", "ms": dict.fromkeys(keys, times), **facts},
                     {"name": "theirs", "left out": "no network", "ms": {}}]}  # fmt: skip


def test_differences_are_those_of_rounds() -> None:
    assert differences(result(), result()) == [
        "0 of 12 times changed by more than chance",
        "12 of 12 are within the interval that the earlier run gave for another one",
    ]
    lines = differences(result(), result(3.0))
    assert len(lines) == 14 and "3.00 times" in lines[0]
    assert lines[-1].startswith("0 of 12 are within")


def test_a_worker_is_asked_in_turn(tmp_path: Path) -> None:
    np.save(tmp_path / "speech.npy", speech(10.0))
    make_bundle(tmp_path / "bundle")
    peer = peers.Peer(PYTHON, "mifuse", f"{tmp_path / 'bundle'}:fp32", tmp_path / "speech.npy")
    try:
        assert 0 < peer.start["load_s"] <= peer.start["first_s"] and peer.start["peak_mb"] > 20
        found = peers.measure({"ours": peer}, 1, budget=0.0)["ours"]
    finally:
        peer.close()
    for how in ("in turn", "alone"):
        assert len(found[how]) == peers.FEWEST
        assert all(wall > 0 and cpu >= 0 for wall, cpu in found[how])


@needs_web
def test_a_worker_in_node(tmp_path: Path) -> None:
    np.save(tmp_path / "speech.npy", speech(10.0))
    make_bundle(tmp_path / "bundle")
    command, packages = environments.environment("node", tmp_path)
    assert environments.installed_mb(packages) > 10
    peer = peers.Peer(command, "mifuse", f"{tmp_path / 'bundle'}:fp32", tmp_path / "speech.npy")
    try:
        assert 0 < peer.start["load_s"] <= peer.start["first_s"] and peer.start["peak_mb"] > 20
        assert [wall > 0 and cpu >= 0 for wall, cpu in peer.times(1, 2)] == [True, True]
    finally:
        peer.close()


def test_small_nets_are_of_the_published_size() -> None:
    for name, parameters, samples in (("wav2small", 72_000, 48_000), ("mobilenetv4", 2_500_000, None)):
        net, inputs, _ = small(name)
        assert sum(part.numel() for part in net.parameters()) == pytest.approx(parameters, rel=0.01)
        assert samples is None or inputs[0].shape == (1, samples)
        assert net.eval()(*inputs).shape[0] == 1


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    np.save(tmp_path / "speech.npy", speech(0.5))
    with pytest.raises(RuntimeError, match="is not a bundle"):
        peers.Peer(PYTHON, "mifuse", f"{tmp_path}:int8", tmp_path / "speech.npy")


def test_the_data_file_names_what_there_is() -> None:
    for row in DATA:
        assert row["env"] in {*environments.NEEDS, "node"} and row["call"] in worker.CALLS
        assert row["licence"] and row["does"]
    assert table(result()).splitlines()[-1] == "| theirs | " + "- | " * 9 + "no network |"


def test_the_page_shows_the_result() -> None:
    page = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    assert table(found) in page
    assert found["provenance"]["command"].startswith("python -m benchmarks.peers")
    assert re.fullmatch(r"[0-9a-f]{40}.*", found["provenance"]["commit"])
