"""`mifuse draws info` and `prune`: cost, invalid answers, scores against labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from draws_files import line, make_manifest, probs, write_lines

from mifuse.cli import main
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest
from mifuse.errors import MifuseError
from mifuse.teachers.base import Answer, Invalid, Source
from mifuse.teachers.draws_quality import Cost, costs, quality
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.ledger import Wanted
from mifuse.teachers.store.rows import Settled, StoredDraw, StoredInvalid

A, B = Source("openai", "m", "cafe"), Source("openai", "bad", "cafe")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Draws of A for two clips, invalid answers of A and B, and a request of A whose process is gone."""
    with DrawsStore(tmp_path / "d.db") as store:
        draws = [StoredDraw(A, f"c{i}", k, Answer(probs(i, k))) for i in range(2) for k in range(4)]
        bad = [StoredInvalid("c0", 0, Invalid("empty", 0)), StoredInvalid("c1", 0, Invalid("refused", 0))]
        store.settle([Settled(A, None, 0.5, draws, bad[:1]), Settled(B, None, 0.25, (), bad)])
        store.reserve([Wanted(A, "c2", (0,), 0, 0.1)], None, "", 60)
    return tmp_path / "d.db"


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["draws", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_costs(path: Path, tmp_path: Path) -> None:
    assert costs(path) == {
        A: Cost(0.5, 0.1, 8, {"empty": 1}),
        B: Cost(0.25, 0.0, 0, {"empty": 1, "refused": 1}),
    }
    assert costs(path)[A].warnings() == ["11% of the answers were invalid, most often: empty"]
    assert Cost(1.0, 0.0, 100, {"empty": 5}).warnings() == []
    assert costs(write_lines(tmp_path / "x.jsonl", [line(0, 0)])) == {}


def test_info_shows_them(path: Path) -> None:
    output = run("info", path)
    assert "openai/m@cafe: 2 clips, 8 draws" in output
    assert (
        "cost $0.5000, up to $0.1000 for requests without an answer; 1 invalid answers\n    1 x empty"
        in output
    )
    assert "openai/bad@cafe: no draws\n  cost $0.2500; 2 invalid answers" in output
    assert "warning: 100% of the answers were invalid" in output
    bad, good = json.loads(run("info", path, "--json"))
    assert (good["usd"], good["unsettled_usd"], good["draws"], good["clips"]) == (0.5, 0.1, 8, 2)
    assert bad["problems"] == {"empty": 1, "refused": 1}


def test_prune(path: Path) -> None:
    assert "say what to delete" in run("prune", path, code=2)
    assert "say what to delete" in run("prune", path, "--draws", code=2)
    assert run("prune", path, "--invalid", "--teacher", "openai/bad") == f"2 invalid deleted from {path}\n"
    assert costs(path)[A].invalid == 1
    assert "1 reservations deleted" in run("prune", path, "--unsettled")
    assert "8 draws deleted" in run("prune", path, "--draws", "--teacher", "openai/m")
    assert costs(path) == {A: Cost(0.5, 0.0, 0, {"empty": 1}), B: Cost(0.25)}
    assert "choose one of" in run("prune", path, "--invalid", "--teacher", "nobody", code=1)


def test_scores_against_labels(tmp_path: Path) -> None:
    make_manifest(tmp_path, 20)
    rows, csv = [], ["path,label,speaker"]
    for i in range(20):
        truth = LABELS[i % 4]
        csv.append(f"c{i}.wav,{truth},s{i % 5}")
        for k in range(2):
            # The first ten are sure and right, the others contradict themselves and are wrong.
            said = truth if i < 10 else LABELS[(i + 1 + k) % 4]
            p = dict.fromkeys(LABELS, 0.05) | {said: 0.85}
            rows.append(line(i, k, probs=p))
    (tmp_path / "target.csv").write_text("\n".join(csv) + "\n")
    file = write_lines(tmp_path / "d.jsonl", rows)
    found = quality(file, tmp_path / "target.csv")
    assert found.scores.n == 20 and found.scores.wa == 50.0
    doubts, right = zip(*found.curve, strict=True)
    assert np.all(np.diff(doubts) >= 0) and right == (100, 100, 50, 0, 0)
    output = run("info", file, "--manifest", tmp_path / "target.csv")
    assert "against 20 labels, for evaluation only:\n  UA 5" in output
    assert "mean MI of a fifth, nats" in output and output.count(" %") >= 5
    unlabelled = make_manifest(tmp_path / "none", 2)
    with pytest.raises(MifuseError, match="no row has a label"):
        quality(file, unlabelled.path)


def test_real_corpus(corpora: Path, tmp_path: Path) -> None:
    manifest = corpora / "ravdess" / "target.csv"
    file = corpora / "ravdess" / "lalm_draws.jsonl"
    found = quality(file, manifest)
    assert found.scores.ua == pytest.approx(52, abs=1.0)
    assert found.scores.n == len(read_manifest(manifest)) and len(found.curve) == 5
