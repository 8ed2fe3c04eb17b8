"""`mifuse bench`: every precision and length, in turns, with the machine beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.errors import MifuseError
from mifuse.exporting.against import against
from mifuse.exporting.bench import WARM_UP, bench, machine, voice
from mifuse_runtime import Recognizer
from mifuse_runtime.resample import resample
from mifuse_runtime.settings import NO_SPEECH, Settings
from mifuse_runtime.vad import speech_share
from tests.bundles import make_bundle


def test_rows_and_order(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", precisions=("fp32", "int8"))
    ticks: list[int] = []
    rows = bench(bundle, seconds=(0.1, 0.5), calls=4, progress=lambda: ticks.append(1))
    assert [(row.precision, row.seconds, row.calls) for row in rows] == [
        ("fp32", 0.1, 4),
        ("int8", 0.1, 4),
        ("fp32", 0.5, 4),
        ("int8", 0.5, 4),
    ]
    assert all(0 < row.p50 <= row.p90 <= row.p99 < 1000 for row in rows)
    assert [row.ratio is None for row in rows] == [True, False, True, False]
    assert len(ticks) == 4  # rounds of one call
    for row in rows:
        assert row.again and row.again[0] <= row.p50 <= row.again[1]
        assert [len(row.rounds[kind]) for kind in ("predict", "graph")] == [4, 4]


def test_precisions_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    predict = Recognizer.predict

    def spy(self: Recognizer, samples: np.ndarray, **options: bool) -> object:
        called.append(2 * id(self) + options.get("gate", True))
        return predict(self, samples, **options)

    monkeypatch.setattr(Recognizer, "predict", spy)
    bench(make_bundle(tmp_path / "b", precisions=("fp32", "int8")), seconds=(0.5,), calls=6)
    visits = np.array(called).reshape(6, -1)  # rounds of one call, each with recognisers of its own
    for calls in visits[:, 1:]:  # the first asks whether the voice is speech
        turns = calls.reshape(-1, 4)
        assert len(turns) == 1 + WARM_UP
        assert all(len(set(row)) == 4 for row in turns)
        assert (turns[1:, 0] == turns[:-1, -1]).all()  # who was last is first


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_its_voice_is_speech(rate: int) -> None:
    for seconds in (0.5, 1.0, 3.0, 10.0):
        assert speech_share(resample(voice(seconds, rate), rate, 16_000), Settings(), 16_000) > 0.3


def test_a_gate_that_lets_nothing_pass_is_left_out(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    card = json.loads((bundle / "bundle.json").read_text())
    card["stream"] = {"level": 0.0}
    (bundle / "bundle.json").write_text(json.dumps(card))
    assert Recognizer.load(bundle).predict(voice(1.0)).state == NO_SPEECH
    assert bench(bundle, seconds=(1.0,), calls=2)[0].graph > 0


def test_one_precision_has_no_ratio(tmp_path: Path) -> None:
    rows = bench(make_bundle(tmp_path / "b"), seconds=(0.1,), calls=1)
    assert [row.precision for row in rows] == ["fp32"] and rows[0].ratio is None
    assert rows[0].again is None  # one round says nothing of chance


def test_machine_names_what_matters() -> None:
    where = machine()
    assert where.cpu and where.cores >= 1 and {"python", "numpy", "onnxruntime"} <= set(where.versions)


def test_command(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", precisions=("fp32", "int8"))
    arguments = ["bench", str(bundle), "--seconds", "0.1,0.2", "--calls", "2"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and machine().cpu in result.output
    assert result.stdout.count("fp32") == 3 and "p99 ms" in result.stdout  # two rows and the header
    document = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert [row["seconds"] for row in document["latencies_ms"]] == [0.1, 0.1, 0.2, 0.2]
    assert document["machine"]["cores"] >= 1 and document["threads"] == 1


@pytest.mark.parametrize("seconds", ["", "a", "1,,2", "0", "-1", "nan", "1e9"])
def test_bad_lengths_are_bad_usage(tmp_path: Path, seconds: str) -> None:
    result = CliRunner().invoke(main, ["bench", str(tmp_path), "--seconds", seconds])
    assert result.exit_code == 2 and "give" in result.output


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["bench", str(tmp_path)])
    assert result.exit_code == 1 and "not a bundle" in result.output
    with pytest.raises(MifuseError, match="0 calls"):
        bench(tmp_path, calls=0)
    with pytest.raises(MifuseError, match="no model for openvino"):
        bench(make_bundle(tmp_path / "b"), engine="openvino")


def test_compared_with_an_earlier_run(tmp_path: Path) -> None:
    arguments = ["bench", str(make_bundle(tmp_path / "b")), "--seconds", "0.1", "--calls", "10"]
    document = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    fast = json.loads(json.dumps(document))
    (row,) = fast["latencies_ms"]
    row["rounds"]["predict"] = [ms / 50 for ms in row["rounds"]["predict"]]
    fast["threads"] = 4
    old = tmp_path / "old.json"
    old.write_text(json.dumps(fast))
    said = CliRunner().invoke(main, [*arguments, "--compare", str(old)])
    assert said.exit_code == 0, said.output
    assert re.search(r"0\.1 s +fp32 +predict .* slower$", said.stdout, re.MULTILINE)
    assert said.stdout.splitlines()[-1] == "not alike: threads then 4, now 1"
    found = json.loads(CliRunner().invoke(main, [*arguments, "--compare", str(old), "--json"]).stdout)
    assert [row["of"] for row in found["compared"]] == ["predict", "graph"]
    assert found["compared"][0]["differs"] and found["compared"][0]["low"] > 1
    assert not any(change.differs for *_, change in against(document, document))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not what `mifuse bench --json` of this version prints"),
        ('{"latencies_ms": [{"seconds": 1, "precision": "fp32", "p50": 1}]}', "is not what"),
        (
            '{"latencies_ms": [{"seconds": 1, "precision": "a", "rounds": {"predict": [-1], "graph": []}}]}',
            "is not",
        ),
        ("[" * 100_000, "is not what"),
        (b"\xff\xfe", "is not what"),
    ],
)
def test_what_is_no_earlier_run_is_refused_before_anything_is_timed(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    old = tmp_path / "old.json"
    old.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = CliRunner().invoke(main, ["bench", str(make_bundle(tmp_path / "b")), "--compare", str(old)])
    assert result.exit_code == 1 and said in result.output and "p50" not in result.stdout


def test_runs_that_cannot_be_compared() -> None:
    rows = [{"seconds": 1.0, "precision": "fp32", "rounds": {"predict": [1.0], "graph": [1.0]}}]
    with pytest.raises(MifuseError, match="give --calls 2 or more"):
        against({"latencies_ms": rows}, {"latencies_ms": rows})
    with pytest.raises(MifuseError, match="none of these lengths"):
        against({"latencies_ms": rows}, {"latencies_ms": [{**rows[0], "seconds": 3.0}]})
