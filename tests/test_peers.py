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
from benchmarks.peers import environments, page, worker
from benchmarks.peers.nets import small
from benchmarks.peers.table import agreement, differences, table
from mifuse.exporting.timing import summary
from tests.browser import needs_web
from tests.bundles import make_bundle, speech

PYTHON = [sys.executable, str(Path(worker.__file__))]
ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "peers.json"
DATA = json.loads((ROOT / "benchmarks" / "peers" / "peers.json").read_text(encoding="utf-8"))


def result(factor: float = 1.0, rounds: int = 9) -> dict:
    rng = np.random.default_rng(0)
    times, slower = (
        asdict(summary([by * rng.lognormal(0.01 * place, 0.05, 20) for place in range(rounds)]))
        for by in (1.0, factor)
    )
    keys = [f"{seconds} s, {how}, {clock}" for seconds in (1, 3, 10) for how in ("in turn", "alone")
            for clock in ("wall", "cpu")]  # fmt: skip
    facts = {"first_s": 0.1, "peak_mb": 60.0, "installed_mb": 100.0}
    return {"rows": [{"name": "ours", "ms": {**dict.fromkeys(keys, times), keys[4]: slower}, **facts},
                     {"name": "theirs", "left out": "no network", "ms": {}}]}  # fmt: skip


def test_differences_are_those_of_rounds() -> None:
    assert differences(result(), result()) == [
        "the machine as a whole took 1.00 times as long; what follows is beside that",
        "0 of 12 times changed by more than chance",
        "12 of 12 are within the interval that the earlier run gave for another one",
        "12 of 12 are, without what the machine as a whole did",
    ]
    _, changed, *rest = differences(result(), result(3.0))
    assert changed.startswith("ours, 3 s, in turn, wall: ") and "3.00 times" in changed
    assert rest[1].startswith("11 of 12 are within")


def test_a_slower_machine_is_no_change_of_a_program() -> None:
    slow = json.loads(json.dumps(result()))
    for times in slow["rows"][0]["ms"].values():
        times["p50"], times["rounds"] = 1.5 * times["p50"], [1.5 * ms for ms in times["rounds"]]
    said = agreement(result(), slow)
    assert (said["within"], said["within, at one speed"], said["times"]) == (0, 12, 12)
    assert said["machine"] == pytest.approx(1.5)
    assert differences(result(), slow)[1] == "0 of 12 times changed by more than chance"


def test_a_worker_is_asked_in_turn(tmp_path: Path) -> None:
    np.save(tmp_path / "speech.npy", speech(10.0))
    make_bundle(tmp_path / "bundle")
    peer = peers.Peer(PYTHON, "mifuse", f"{tmp_path / 'bundle'}:fp32", tmp_path / "speech.npy")
    try:
        assert 0 < peer.start["load_s"] <= peer.start["first_s"] and peer.start["peak_mb"] > 20
        found = peers.measure({"ours": peer}, 1, budget=0.0)[0]["ours"]
    finally:
        peer.close()
    for how in ("in turn", "alone"):
        assert len(found[how]) == peers.FEWEST
        assert all(wall > 0 and cpu >= 0 for wall, cpu in found[how])


def test_a_hop_of_a_stream_is_one_hop(tmp_path: Path) -> None:
    stream = worker.CALLS["mifuse_hop"](f"{make_bundle(tmp_path / 'bundle')}:fp32")
    assert [len(stream(speech(1.0))) for _ in range(3)] == [1, 1, 1]


def test_energy_is_the_sum_of_packages(tmp_path: Path) -> None:
    assert peers.energy_mj(tmp_path) is None
    for name, uj in (("intel-rapl:0", 5_000), ("intel-rapl:1", 7_000), ("intel-rapl:0:0", 9)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{uj}\n")
    assert peers.energy_mj(tmp_path) == 12.0


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
        assert row["does"] and row["licence"]
        if "env" not in row:
            assert row["published"]
            continue
        assert row["env"] in {*environments.NEEDS, "node"} and row["call"] in worker.CALLS
    assert table(result()).splitlines()[-1] == "| theirs | " + "- | " * 9 + "no network |"


def test_the_page_shows_the_result() -> None:
    text = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")  # python -m benchmarks.peers.page
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    assert table(found) in text
    assert all(f"| {row['name']} |" in text for row in DATA)
    assert found["provenance"]["command"].startswith("python -m benchmarks.peers")
    assert re.fullmatch(r"[0-9a-f]{40}.*", found["provenance"]["commit"])


def test_the_page_is_made_of_results(tmp_path: Path) -> None:
    told = {"date": "2026-12-01", "commit": 40 * "a", "command": "python -m benchmarks.peers"}
    machine = {"cpu": "a CPU", "cores": 2, "load": 0.5}
    second = {"times": 12, "within": 11, "machine": 1.04}
    found = result() | {"provenance": told, "machine": machine, "second": second}
    found["rows"][0] |= {"name": "mifuse int8", "mj": 3.2, "model_kb": 191.6}
    (tmp_path / "peers.json").write_text(json.dumps(found))
    cells = [{"adapt": {"student": [80.0, 79.0]}, "test": {"student": [66.0, 65.0]}}]
    (tmp_path / "field.json").write_text(json.dumps({"cells": cells}))
    text = page.page(tmp_path)
    assert "A second run had 11 of 12 times within" in text and "1.04 times as slow" in text
    assert "| mifuse int8 | four emotions | 192 kB | Apache-2.0 | UA 80.0 on the archive, 66.0 on new" in text
    assert "Energy of a call of 3 s, mJ: mifuse int8 3.2" in text
    assert "How far from the limit" not in text
    limits = {"float_gmacs": 30.0, "int8_gmacs": 90.0, "cache_gb": 50.0, "fft_us": 2.0}
    part = {"operators": 3, "mmacs": 20.0, "kb": 500.0, "bound_ms": 0.2}
    told_of = {"provenance": told, "machine": machine, "ceilings": limits, "parts": {"Conv, int8": part}}
    times = {"bound_ms": 0.2, "taken_ms": 0.4, "predict_ms": 0.5, "fft_ms": 0.3}
    document = told_of | times | {"file": "model.int8.onnx", "seconds": 3.0}
    (tmp_path / "roofline.json").write_text(json.dumps(document))
    text = page.page(tmp_path)
    assert "graph 0.400 ms, 2.0 times" in text and "| Conv, int8 | 3 | 20.00 | 500 | 0.200 |" in text
