"""The paper's corpora as their makers send them, in small: from trees to the table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import paper
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import DOMAINS, _write_wav, make_speaker, synthesise
from tests.llm_server import LlmServer
from tests.tutorials import level_decides

LABELS = ("angry", "happy", "neutral", "sad")

ROOT = Path(__file__).resolve().parent.parent


def wav(path: Path, label: str, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    speaker = make_speaker(DOMAINS["studio"], np.random.default_rng(seed // 4))
    _write_wav(path, synthesise(label, speaker, DOMAINS["studio"], rng, 0.5))


def iemocap(folder: Path) -> Path:
    for session in (1, 2, 3):
        name, lines = f"Ses0{session}F_impro01", []
        for number, code in enumerate(("ang", "exc", "neu", "sad", "fru")):
            turn = f"{name}_{'FM'[session % 2]}00{number}"
            lines.append(f"[{number}.0 - {number}.5]\t{turn}\t{code}\t[2.5, 2.5, 2.5]\n")
            label = LABELS[number] if number < 4 else "sad"
            wav(folder / f"Session{session}/sentences/wav/{name}/{turn}.wav", label, 10 * session + number)
        file = folder / f"Session{session}/dialog/EmoEvaluation/{name}.txt"
        file.parent.mkdir(parents=True)
        file.write_text("".join(lines))
    return folder


def msp_improv(folder: Path) -> Path:
    lines = []
    for actor in (1, 2, 3):
        for number, code in enumerate("AHNS"):
            key = f"S01A-F0{actor}-P-FM0{number}"
            lines.append(f"UTD-IMPROV-{key}.avi; {code}; A:3.0; V:3.5; D:3.0 ; N:4.0;\n")
            wav(folder / f"session{actor}/S01A/P/MSP-IMPROV-{key}.wav", LABELS[number], 40 * actor + number)
    (folder / "Evalution.txt").write_text("".join(lines))
    return folder


def msp_podcast(folder: Path) -> Path:
    lines = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"]
    for number in range(12):
        name = f"MSP-PODCAST_0001_{number:04d}"
        held = "Test1" if number >= 8 else "Train"
        lines.append(f"{name}.wav,{'AHNS'[number % 4]},2.2,4.0,2.6,{number // 4},Male,{held}\n")
        wav(folder / f"Audios/{name}.wav", LABELS[number % 4], 200 + number)
    (folder / "Labels").mkdir()
    (folder / "Labels/labels_consensus.csv").write_text("".join(lines))
    return folder


@pytest.mark.learning
def test_from_three_trees_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    trees = {"iemocap": iemocap, "msp-improv": msp_improv, "msp-podcast": msp_podcast}
    words = [
        part for name, make in trees.items() for part in (f"--{name}", str(make(tmp_path / f"own {name}")))
    ]
    words += ["--work", str(tmp_path / "work")]
    assert paper.main(words) == 1
    assert "name a --teacher" in capsys.readouterr().err
    small = ["--methods", "lalm", "--seeds", "1", "--jobs", "1"]
    for setting in ("size=xs", "fit.steps=1"):
        small += ["--set-classifier", setting]
    with LlmServer(answer=level_decides) as server:
        asked = ["--teacher", "openai", "--model", "m", "--base-url", f"{server.url}/v1", "--price", "0"]
        assert paper.main([*words, *asked, *small]) == 0
    said = capsys.readouterr().out
    assert "| msp-improv>iemocap |" in said and said.count("| 59.09 |") == said.count("| 58.38 |") == 1
    corpora = tmp_path / "work" / "corpora"
    sets = {name: read_manifest(corpora / name / "target.csv") for name in trees}
    assert [len(found) for found in sets.values()] == [12, 12, 12]
    assert all({clip.split for clip in found.clips} == {"adapt", "test"} for found in sets.values())
    podcast = sets["msp-podcast"].clips
    assert {clip.extra["set"]: clip.split for clip in podcast} == {"Train": "adapt", "Test1": "test"}
    document = json.loads((tmp_path / "work" / "paper.json").read_text())
    assert len(document["transfers"]) == 6 and set(document["mean"]) == {"lalm"}
    assert not list((tmp_path / "own iemocap").rglob("*.csv")), "the user's copy is not written to"


def test_a_folder_that_is_not_the_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [part for name in paper.CORPORA for part in (f"--{name}", str(tmp_path / name))]
    assert paper.main([*words, "--work", str(tmp_path / "work")]) == 1
    assert "`mifuse fetch iemocap` says where to ask" in capsys.readouterr().err
    wav(tmp_path / "iemocap/Session1/sentences/wav/x/Ses01F_impro01_F000.wav", "sad", 0)
    assert paper.main([*words, "--work", str(tmp_path / "work")]) == 1
    said = capsys.readouterr().err
    assert "iemocap" in said and said.count("\n") == 1


def test_the_notebook_reads_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells, one after the other, on a result of the same benchmark on other corpora."""
    notebook = json.loads((ROOT / "docs" / "paper.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], len({cell["id"] for cell in notebook["cells"]})) == (
        4,
        len(notebook["cells"]),
    )
    (tmp_path / "paper").mkdir()
    shutil.copy(ROOT / "benchmarks" / "results" / "transfers.json", tmp_path / "paper" / "paper.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), names)
    said = capsys.readouterr().out
    assert "| mean |" in said and "58.38" in said and "nemo>ravdess" in said
    assert (tmp_path / "paper" / "paper.svg").stat().st_size > 10_000
