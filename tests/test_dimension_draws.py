"""Dimensions from a LALM: asked for, judged, kept, loaded, fused, and taught to a student."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.clips.manifest import read_manifest
from mifuse.errors import DrawsError
from mifuse.fusion.dimensions import FLOOR, fuse_dimensions
from mifuse.models.classifier import load_student
from mifuse.teachers.answers import InvalidAnswerError, parse_all
from mifuse.teachers.base import Answer, Source
from mifuse.teachers.jsonl import read_jsonl
from mifuse.teachers.numbers import load_numbers, summarise_numbers
from mifuse.teachers.prompts import Prompts
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.rows import StoredDraw
from mifuse_runtime import Recognizer
from mifuse_runtime.__main__ import main as runtime
from tests import tutorials
from tests.dimensions import RANGES, write_clips
from tests.draws_files import line, make_manifest, probs
from tests.llm_server import LlmServer

DOCS = Path(__file__).parents[1] / "docs" / "dimensions.md"
NUMBERS = {"arousal": (1.0, 7.0)}


def test_questions_ask_for_numbers_and_nothing_else_changes() -> None:
    plain, asked = (Prompts(("angry", "sad"), dimensions=d) for d in ((), tuple(RANGES.items())))
    first, second = plain.get(0), asked.get(0)
    assert second.text.startswith(first.text)
    assert '"arousal", from 1 (very calm) to 7 (very excited), "valence", from -1 (' in second.text
    assert second.schema()["required"] == [*second.labels, "arousal", "valence"]
    assert first.schema()["required"] == [*first.labels]
    assert plain.hash({}) == Prompts(("angry", "sad")).hash({}) != asked.hash({})


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({}, "no number for arousal"),
        ({"arousal": 8}, "arousal is 8: expected a number from 1 to 7"),
        ({"arousal": "high"}, "arousal is 'high': expected a number"),
        ({"arousal": True}, "arousal is 'True'"),
        ({"arousal": 4, "valence": 0.01}, "unknown label 'valence'"),
    ],
)
def test_answers_without_the_numbers_are_none(numbers: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidAnswerError, match=said):
        parse_all(json.dumps({"angry": 0.5, "sad": 0.5, **numbers}), ("angry", "sad"), NUMBERS)


def test_the_store_keeps_numbers_and_gives_them_back(tmp_path: Path) -> None:
    source, path = Source("lalm"), tmp_path / "d.db"
    with DrawsStore(path) as store:
        answers = [Answer(probs(0, k), dimensions={"arousal": 4.0 + k} if k else {}) for k in range(3)]
        assert store.add([StoredDraw(source, "h", k, one) for k, one in enumerate(answers)]) == 3
        assert [dict(draw.answer.dimensions) for draw in store.draws(source)] == [
            {},
            {"arousal": 5},
            {"arousal": 6},
        ]
        assert summarise_numbers(path, source)["arousal"]["deviation"] == 0.5
        assert store.prune(source, "draws") == 3
        assert store.add([StoredDraw(source, "h", 1, Answer(probs(0, 1)))]) == 1
        assert [dict(draw.answer.dimensions) for draw in store.draws(source)] == [{}]


def write_draws(folder: Path, numbers: list[object]) -> Path:
    manifest = make_manifest(folder, len(numbers))
    rows = [line(i, 0, dimensions=value) for i, value in enumerate(numbers)]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest.path


def test_files_go_into_a_store_and_out_again(tmp_path: Path) -> None:
    manifest = write_draws(tmp_path, [{"arousal": 4}, {"arousal": 7, "valence": 0}, None])
    store, again = tmp_path / "d.db", tmp_path / "again.jsonl"
    for words in (
        ("import", tmp_path / "d.jsonl", "--store", store, "--manifest", manifest),
        ("export", store, "-o", again, "--manifest", manifest),
    ):
        done = CliRunner().invoke(main, ["draws", *map(str, words)])
        assert done.exit_code == 0, done.output
    assert {draw.clip[0]: draw.dimensions for draw in read_jsonl(again)} == {
        "c0.wav": {"arousal": 4},
        "c1.wav": {"arousal": 7, "valence": 0},
        "c2.wav": {},
    }
    for file in (store, again):
        done = CliRunner().invoke(main, ["draws", "info", str(file)])
        assert done.exit_code == 0 and "arousal: 2 draws from 4 to 7, mean 5.5; draws of" in done.output
        done = CliRunner().invoke(main, ["draws", "info", str(file), "--json"])
        assert json.loads(done.stdout)[0]["dimensions"]["valence"] == {
            **{"draws": 1, "lowest": 0, "highest": 0, "mean": 0},
            "deviation": 0,
        }
    clips = read_manifest(manifest).clips
    for file in (store, again):
        values = load_numbers(file, clips, RANGES)
        np.testing.assert_allclose(values, [[[0.5, np.nan], [1.0, 0.5], [np.nan, np.nan]]])
    with pytest.raises(DrawsError, match=r"draw 0 of 'c1\.wav': arousal is 7, 1 to 5 expected"):
        load_numbers(again, clips, {"arousal": (1.0, 5.0)})


@pytest.mark.parametrize("value", [{"arousal": "x"}, {"arousal": float("nan")}, [4], {"arousal": None}])
def test_files_with_other_numbers_are_refused(tmp_path: Path, value: object) -> None:
    write_draws(tmp_path, [value])
    with pytest.raises(DrawsError, match="line 1: "):
        read_jsonl(tmp_path / "d.jsonl")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--teacher", "replay"), "asks nothing and says what it has"),
        (("--teacher", "openai", "--model", "m", "--price", "1,1", "--probs", "logprobs"), "reads one word"),
        (
            ("--teacher", "openai", "--model", "m", "--price", "1,1", "--labels", "arousal,calm"),
            "is a label, too",
        ),
    ],
)
def test_teachers_that_cannot_be_asked_for_numbers(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    manifest = str(write_draws(tmp_path, [None]))
    ask = ["label", manifest, "--store", str(tmp_path / "d.db"), "--targets", "arousal", "--dry-run"]
    done = CliRunner().invoke(main, [*ask, *words])
    assert done.exit_code == 2 and said in " ".join(done.output.split()), done.output


def test_fusion_trusts_draws_that_agree_more() -> None:
    rng = np.random.default_rng(0)
    spread = np.where(np.arange(40) % 2, 0.3, 0.01)[:, None]
    lalm = 0.4 + spread * rng.standard_normal((8, 40, 1))
    fused = fuse_dimensions({"LALM": lalm, "classifier": np.full((8, 40, 1), 0.8)}, NUMBERS)
    sure, unsure = fused.shares["LALM"][::2].mean(), fused.shares["LALM"][1::2].mean()
    assert sure > unsure + 0.1
    assert fused.weights[::2].mean() > fused.weights[1::2].mean()
    np.testing.assert_allclose(fused.shares["LALM"] + fused.shares["classifier"], 1)


def test_fusion_of_single_and_of_equal_draws_is_the_mean() -> None:
    one = fuse_dimensions({"a": np.array([[[0.2], [0.4]]]), "b": np.array([[[0.6], [np.nan]]])}, NUMBERS)
    np.testing.assert_allclose(one.values, [[0.4], [0.4]])
    equal = fuse_dimensions({"a": np.full((5, 2, 1), 0.2), "b": np.full((3, 2, 1), 0.6)}, NUMBERS)
    assert FLOOR > 0 and np.isfinite(equal.weights).all() and (abs(equal.values - 0.4) < 0.05).all()


def test_fusion_names_what_no_teacher_says() -> None:
    silent = np.dstack([np.full((2, 3), 0.5), np.full((2, 3), np.nan)])
    with pytest.raises(DrawsError, match=r"no teacher says valence \(said by LALM: arousal\)"):
        fuse_dimensions({"LALM": silent}, RANGES)


def test_the_commands_of_the_page(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: LlmServer,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clips(tmp_path).rename("source.csv")
    Path("target.csv").write_text(Path("source.csv").read_text())
    monkeypatch.setitem(tutorials.QUICK, "export", ["--format", "onnx", "--max-drop", "100"])
    (block,) = re.findall(r"```bash\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    said = tutorials.follow(block, server)
    assert "taught" in said[2] and "by LALM" in said[2] and "and classifier" in said[2]
    assert "valence: CCC" in said[4]
    assert load_student(Path("student")).dimensions == RANGES == Recognizer.load("bundle").dimensions
    head, row = (text.split(",") for text in capsys.readouterr().out.splitlines())
    assert head[-2:] == ["arousal", "valence"] and 1 <= float(row[-2]) <= 7
    with DrawsStore("draws.db", read_only=True) as store:
        (source,) = store.sources()
        assert all(set(draw.answer.dimensions) == set(RANGES) for draw in store.draws(source))
    plain = [
        *("adapt", "--target", "target.csv", "--draws", "draws.db", "-o", "plain"),
        *tutorials.QUICK["adapt"],
    ]
    assert CliRunner().invoke(main, plain).exit_code == 0
    assert "draws.db also says arousal, valence, which is not taught" in caplog.text
    for words, complaint in (
        (("--targets", "arousal", "--range", "1:9"), "state the range of the source"),
        (("--targets", "dominance"), "no teacher says dominance (said by LALM: none)"),
    ):
        done = CliRunner().invoke(
            main,
            [
                "adapt",
                "--source",
                "source",
                "--target",
                "target.csv",
                "--draws",
                "draws.db",
                "-o",
                "x",
                *words,
            ],
        )
        assert done.exit_code == 1 and complaint in " ".join(done.output.split()), done.output
    assert not Path("x").exists() and runtime(["verify", "bundle"]) == 0
