"""`load_draws`: one array from a store or JSONL, and every draw that is none refused in one line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from draws_files import line, make_manifest, probs, write_lines
from hypothesis import given
from hypothesis import strategies as st

from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Manifest, read_manifest
from mifuse.errors import DrawsError
from mifuse.fusion.weighting import mutual_information
from mifuse.teachers.base import Source, check_distribution, choose_source
from mifuse.teachers.draws import FLOOR, load_draws, summarise
from mifuse.teachers.jsonl import import_jsonl, read_jsonl
from mifuse.teachers.store.database import DrawsStore


def stored(file: Path, manifest: Manifest) -> Path:
    """The store beside a JSONL file, with its draws."""
    with DrawsStore(file.with_suffix(".db")) as store:
        import_jsonl(store, read_jsonl(file), manifest, AudioCache())
    return file.with_suffix(".db")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_manifest(tmp_path, 3, splits=["adapt", "adapt", "test"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    # Lines in disorder: neither clips nor draws need to come sorted.
    return write_lines(tmp_path / "d.jsonl", [line(i, k) for k in (2, 0, 1) for i in (2, 0, 1)])


def test_store_and_jsonl_give_the_same_array(manifest: Manifest, file: Path) -> None:
    draws = load_draws(file, manifest.clips)
    assert draws.shape == (3, 3, 4)
    assert draws.dtype == np.float64
    assert np.array_equal(draws, load_draws(stored(file, manifest), manifest.clips, cache=AudioCache()))
    expected = np.array([[[probs(i, k)[name] for name in LABELS] for i in range(3)] for k in range(3)])
    assert np.abs(draws - expected).max() < 0.005
    assert draws.sum(axis=-1) == pytest.approx(1.0)
    assert draws.min() > FLOOR / 1.01


def test_clips_and_labels_come_in_the_order_asked(manifest: Manifest, file: Path) -> None:
    everything = load_draws(file, manifest.clips)
    order = ("sad", "neutral", "angry", "happy")
    turned = load_draws(file, manifest.clips[::-1], order)
    assert turned == pytest.approx(everything[:, ::-1][..., [LABELS.index(name) for name in order]])
    assert np.array_equal(load_draws(file, manifest.select("test").clips), everything[:, 2:])


def test_rounding_is_renormalised_and_zeros_are_floored(manifest: Manifest, tmp_path: Path) -> None:
    rounded = {"angry": 0.95, "happy": 0.1, "neutral": 0.0, "sad": 0.0}
    file = write_lines(tmp_path / "r.jsonl", [line(0, k, probs=rounded) for k in range(2)])
    draws = load_draws(file, manifest.clips[:1])
    assert draws.sum(axis=-1) == pytest.approx(1.0)
    assert draws[0, 0] == pytest.approx([0.9030, 0.0950, 0.000998, 0.000998], rel=1e-3)


def test_a_single_draw_is_warned_of(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_lines(tmp_path / "s.jsonl", [line(i, 0) for i in range(3)])
    assert load_draws(file, manifest.clips).shape == (1, 3, 4)
    assert "a single draw per clip: its mutual information is 0" in caplog.text


def test_fewer_draws_are_repeated(manifest: Manifest, tmp_path: Path) -> None:
    sure = [{name: float(name == label) for name in LABELS} for label in LABELS]
    rows = [line(i, k, probs=sure[(i + k) % 4]) for i in range(3) for k in range(1 + i)]
    draws = load_draws(write_lines(tmp_path / "u.jsonl", rows), manifest.clips)
    assert draws.shape == (3, 3, 4)
    assert draws.argmax(axis=-1).T.tolist() == [[0, 0, 0], [1, 2, 1], [2, 3, 0]]


def test_clips_of_equal_content_share_their_draws(file: Path, manifest: Manifest, tmp_path: Path) -> None:
    store = stored(file, manifest)
    (tmp_path / "copy.wav").write_bytes((tmp_path / "c1.wav").read_bytes())
    (tmp_path / "copies.csv").write_text("path\nc1.wav\ncopy.wav\n")
    draws = load_draws(store, read_manifest(tmp_path / "copies.csv").clips)
    assert np.array_equal(draws[:, 0], draws[:, 1])


def test_missing_clips_are_counted_and_named(manifest: Manifest, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "m.jsonl", [line(1, k) for k in range(2)])
    for path in (file, stored(file, manifest)):
        with pytest.raises(
            DrawsError, match=r"2 of 3 clips have no draws \(first: 'c0.wav'\): get them with"
        ):
            load_draws(path, manifest.clips)
    with pytest.raises(DrawsError, match="no clips to load draws for"):
        load_draws(file, [])


def test_one_of_several_teachers_must_be_named(manifest: Manifest, tmp_path: Path) -> None:
    rows = [line(i, k, teacher=name) for name in ("one", "two") for i in range(3) for k in range(2)]
    file = write_lines(tmp_path / "t.jsonl", rows)
    for path in (file, stored(file, manifest)):
        with pytest.raises(DrawsError, match="draws of several teachers: choose one of one, two"):
            load_draws(path, manifest.clips)
        with pytest.raises(DrawsError, match="no draws of 'three': choose one of one, two"):
            load_draws(path, manifest.clips, teacher="three")
        assert load_draws(path, manifest.clips, teacher="two").shape == (2, 3, 4)


def test_sources_are_chosen_by_teacher_model_and_prompt() -> None:
    a, b, c = Source("x", "small", "1" * 16), Source("x", "small", "2" * 16), Source("x", "large", "1" * 16)
    assert choose_source([a, b, c], "x/large", "f") == c
    assert choose_source([a, b, c], "x/small@22222222", "f") == b
    assert choose_source([a, Source("x")], "x", "f") == Source("x")
    for ambiguous in ("x", "x/small", None):
        with pytest.raises(DrawsError, match="several teachers"):
            choose_source([a, b, c], ambiguous, "f")
    with pytest.raises(DrawsError, match="holds no draws"):
        choose_source([], None, "f")


P = probs(0, 0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"probs": {**P, "happy": P["happy"] + 0.2}}, "sum to 1.2, not 1"),
        ({"probs": dict.fromkeys(LABELS, 0)}, "sum to 0, not 1"),
        ({"probs": {**P, "sad": -0.05}}, "probability of 'sad' is -0.05: expected a number from 0"),
        ({"probs": {**P, "sad": float("nan")}}, "probability of 'sad' is nan"),
        ({"probs": {**P, "sad": float("inf")}}, "probability of 'sad' is inf"),
        ({"probs": {**P, "sad": "0.1"}}, "probability of 'sad' is '0.1'"),
        ({"probs": {**P, "sad": True}}, "probability of 'sad' is True"),
        ({"probs": {**P, "\n": 0.0}}, "cannot be a label"),
        ({"probs": None, "label": 3}, "label is '3': expected one label"),
        ({"label": "sad"}, "label is 'sad': expected one label, and no probs"),
        ({"probs": {**P, "joy": 0.0}}, "repeated label 'joy'"),
        ({"probs": [0.25] * 4}, "probs is .*: expected a probability for each label"),
        ({"probs": None}, "probs is None"),
        ({"path": None}, "path is None: expected a text"),
        ({"path": ""}, "path is ''"),
        ({"teacher": 3}, "teacher is 3"),
        ({"draw": -1}, "draw is -1: expected a whole number"),
        ({"draw": 0.5}, "draw is 0.5"),
        ({"draw": 10**30}, "draw is 1000"),
        ({"probs": {**P, "sad": 10**400}}, "probability of 'sad' is 1000"),
        ({"teacher": "\ud800"}, "teacher is .*: expected printable"),
        ({"model": "a\nb"}, "model is .*: expected printable"),
        ({"draw": None}, "draw is None"),
        ({"start": "0"}, "start is '0': expected seconds"),
    ],
)
def test_lines_that_are_no_draws_are_refused(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    file = write_lines(tmp_path / "bad.jsonl", [line(1, 0), line(0, 0, **bad)])
    with pytest.raises(DrawsError, match=f"bad.jsonl, line 2: .*{message}") as error:
        read_jsonl(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no draws"),
        (b"\n\n", "holds no draws"),
        (b"path,draw\n", "line 1: not JSON"),
        (b"[1, 2]\n", "line 1: not a JSON object"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b'{"draw": ' + b"1" * 5000 + b"}", "line 1: not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (json.dumps(line(0, 0)).encode() * 2, "line 1: not JSON"),
        (
            json.dumps(line(0, 0)).encode() + b"\n" + json.dumps(line(0, 0)).encode(),
            "line 2: repeats draw 0 of",
        ),
    ],
)
def test_files_that_are_no_jsonl_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(DrawsError, match=f"bad.jsonl.*{message}") as error:
        read_jsonl(tmp_path / "bad.jsonl")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(manifest: Manifest, file: Path) -> None:
    for absent in ("absent.jsonl", "absent.db"):
        with pytest.raises(
            DrawsError, match=f"{absent}: no such file of draws: get draws with `mifuse label`"
        ):
            load_draws(file.parent / absent, manifest.clips)


def test_a_byte_order_mark_and_aliases_are_fine(tmp_path: Path, manifest: Manifest) -> None:
    row = line(0, 0, probs={"Anger": 0.1, "excited": 0.2, "neu": 0.3, "sadness": 0.4})
    (tmp_path / "bom.jsonl").write_text("\ufeff" + json.dumps(row) + "\n", encoding="utf-8")
    assert load_draws(tmp_path / "bom.jsonl", manifest.clips[:1])[0, 0] == pytest.approx([0.1, 0.2, 0.3, 0.4])


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_distribution_is_kept_as_given_or_refused(values: list[float]) -> None:
    given_probs = dict(zip(LABELS, values, strict=True))
    if abs(sum(values) - 1) <= 0.1:
        assert check_distribution(given_probs, "here") == given_probs
    else:
        with pytest.raises(DrawsError, match="not 1"):
            check_distribution(given_probs, "here")


# mifuse draws


def test_summaries_of_store_and_jsonl_agree(manifest: Manifest, file: Path) -> None:
    (summary,) = summarise(file)
    assert (summary.clips, summary.draws, summary.source) == (3, 9, Source("stand-in"))
    assert sum(summary.prior.values()) == pytest.approx(1.0)
    assert sum(summary.predicted.values()) == pytest.approx(1.0)
    draws = load_draws(file, manifest.clips)
    assert summary.mean_mi == pytest.approx(mutual_information(draws).mean())
    assert summarise(stored(file, manifest)) == [summary]


def test_collapse_and_sameness_are_warned_of(tmp_path: Path) -> None:
    same = {"angry": 0.7, "happy": 0.1, "neutral": 0.1, "sad": 0.1}
    rows = [line(i, k, probs=same) for i in range(4) for k in range(2)] + [line(9, 0, teacher="t")]
    collapsed, single = summarise(write_lines(tmp_path / "w.jsonl", rows))
    assert collapsed.warnings() == [
        "100% of clips are predicted angry: the teacher collapses toward one class; "
        "if most recordings are that, adapt with --set refine.prior=0.1",
        "draws of a clip never differ: mutual information cannot separate sure from unsure",
    ]
    assert "one draw per clip" in single.warnings()[1]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["draws", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_import_info_export(manifest: Manifest, file: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "new.db", tmp_path / "out.jsonl"
    assert run("import", file, "--manifest", manifest.path, "--store", store).startswith(
        "9 draws added, 0 were"
    )
    assert "stand-in: 3 clips, 9 draws, mean MI 0." in run("info", store)
    (row,) = json.loads(run("info", store, "--json"))
    assert row["source"] == "stand-in"
    assert run("export", store, "--manifest", manifest.path, "-o", out) == f"9 draws written to {out}\n"
    assert sorted(out.read_text().splitlines()) == sorted(file.read_text().splitlines())
    assert "exists already" in run("export", store, "--manifest", manifest.path, "-o", out, code=1)


def test_bad_import_makes_no_store(manifest: Manifest, tmp_path: Path) -> None:
    bad = write_lines(tmp_path / "bad.jsonl", [line(0, 0, probs={"fear": 0.5})])
    output = run("import", bad, "--manifest", manifest.path, "--store", tmp_path / "new.db", code=1)
    assert output.startswith("Error: ")
    assert output.count("\n") == 1
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("corpus", ["ravdess", "nemo", "koremo"])
def test_real_corpora(corpora: Path, tmp_path: Path, corpus: str) -> None:
    manifest = read_manifest(corpora / corpus / "target.csv")
    file = corpora / corpus / "lalm_draws.jsonl"
    cache = AudioCache(tmp_path / "cache")
    started = time.perf_counter()
    with DrawsStore(tmp_path / "d.db") as store:
        done = import_jsonl(store, read_jsonl(file), manifest, cache)
    assert time.perf_counter() - started < 30  # 18,848 draws, 2,356 files to hash: about 3 s
    assert (done.added, done.unknown) == (8 * len(manifest), 0)
    draws = load_draws(tmp_path / "d.db", manifest.clips, cache=cache)
    assert np.array_equal(draws, load_draws(file, manifest.clips))
    truth = np.array([LABELS.index(clip.label or "") for clip in manifest.clips])
    right = draws.mean(axis=0).argmax(axis=1) == truth
    ua = 100 * np.mean([right[truth == c].mean() for c in range(4)])
    assert ua == pytest.approx({"ravdess": 52, "nemo": 46, "koremo": 42}[corpus], abs=1.0)
