"""Corpora with the archives that users have, made of others."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import archives, field
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest, write_manifest
from mifuse.demo.stand_in import stand_in_lalm
from mifuse.demo.synth import make_domain


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """Two corpora of 3 speakers x 24 clips, the last of them in the test split."""
    folder = tmp_path_factory.mktemp("corpora")
    for seed, name in enumerate("xy"):
        manifest = make_domain(
            folder / name, "phone", speakers=3, clips_per_speaker=24, test_speakers=1, seed=seed, seconds=0.6
        )
        stand_in_lalm(read_manifest(manifest), folder / name / "lalm_draws.jsonl", draws=2)
        for file in ("source.csv", "target.csv"):
            shutil.copy(manifest, folder / name / file)
    return folder


def rows(folder: Path, split: str):
    return read_manifest(folder / "x" / "target.csv").select(split).clips


def test_nameless(corpora, tmp_path):
    out = tmp_path / "out"
    assert archives.main(["--corpora", str(corpora), "--out", str(out), "--nameless"]) == 0
    assert {clip.speaker for clip in rows(out, "adapt")} == {None}
    assert [c.speaker for c in rows(out, "test")] == [c.speaker for c in rows(corpora, "test")]
    assert [c.name for c in rows(out, "adapt")] == [c.name for c in rows(corpora, "adapt")]
    for name in ("source.csv", "lalm_draws.jsonl"):
        assert (out / "x" / name).read_bytes() == (corpora / "x" / name).read_bytes()


def test_mostly_one_emotion(corpora, tmp_path):
    out, prevails = tmp_path / "out", LABELS[2]
    arguments = ["--corpora", str(corpora), "--out", str(out), "--most", prevails, "--share", "0.7"]
    assert archives.main(arguments) == 0
    before = Counter(clip.label for clip in rows(corpora, "adapt"))
    counts = Counter(clip.label for clip in rows(out, "adapt"))
    assert counts[prevails] == before[prevails]
    others = {counts[label] for label in LABELS if label != prevails}
    assert others == {round(before[prevails] * 0.3 / 0.7 / 3)}
    assert len(rows(out, "test")) == len(rows(corpora, "test"))


def test_each_speaker_is_new_once(corpora):
    clips = read_manifest(corpora / "x" / "target.csv").clips
    new = [{c.speaker for c in field.cut(clips, name) if c.split == "test"} for name in field.FOLDS]
    assert sorted(who for speakers in new for who in speakers) == sorted({c.speaker for c in clips})
    for name, speakers in zip(field.FOLDS, new, strict=True):
        made = field.cut(clips, name)
        assert [replace(c, split=None) for c in made] == [replace(c, split=None) for c in clips]
        assert not speakers & {c.speaker for c in made if c.split == "adapt"}


@pytest.mark.parametrize("archive", [*field.ARCHIVES, *field.FOLDS])
def test_archives_of_the_field(corpora, archive):
    once = read_manifest(corpora / "x" / "target.csv").clips
    clips = [replace(c, name=f"{i} {c.name}") for i in range(4) for c in once]
    made = field.cut(clips, archive)
    assert {c.name for c in made} <= {c.name for c in clips}
    assert {c.split for c in made} == {"adapt", "test"}


def test_cells_are_kept_by_all_that_they_depend_on(corpora, tmp_path):
    cell = field.Cell(corpora, tmp_path, field.Transfer.parse("x>y"), "lalm_draws.jsonl", "as is", "labels")
    others = [
        replace(cell, **one)
        for one in ({"archive": "no names"}, {"seed": 1}, {"asked": 2}, {"settings": ("refine.rounds=0",)})
    ]
    assert len({one.file for one in [cell, *others]}) == 5
    assert str(others[-1]).endswith("as is: labels, refine.rounds=0")


def test_what_cannot_be_made_is_said(corpora, tmp_path, capsys):
    arguments = ["--corpora", str(corpora), "--out", str(tmp_path / "out"), "--most", LABELS[0]]
    assert archives.main([*arguments, "--share", "0.99"]) == 1
    assert "too few to be 99%" in capsys.readouterr().err
    assert archives.main([*arguments, "--share", "70"]) == 1
    assert "share = 70" in capsys.readouterr().err
    (tmp_path / "out" / "x").mkdir(parents=True)
    assert archives.main([*arguments, "--share", "0.5"]) == 1
    assert str(tmp_path / "out" / "x") in capsys.readouterr().err


def test_an_unlabelled_clip_is_named_and_nothing_is_left(corpora, tmp_path, capsys):
    manifest = corpora / "y" / "target.csv"  # the second, so that the first could have been made
    clips = read_manifest(manifest).clips
    text = manifest.read_text()
    write_manifest(manifest, [replace(clips[0], label=None), *clips[1:]])
    arguments = ["--corpora", str(corpora), "--out", str(tmp_path / "out"), "--most", LABELS[0]]
    assert archives.main([*arguments, "--share", "0.5"]) == 1
    assert f"{clips[0].name} has no label" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    manifest.write_text(text)


def test_exchanged_labels(corpora, tmp_path, capsys):
    out, arguments = tmp_path / "out", ["--corpora", str(corpora), "--out", str(tmp_path / "out")]
    assert archives.main([*arguments, "--exchange", "x", "sad", "glad"]) == 1
    assert "two of its labels (angry, happy, neutral, sad)" in capsys.readouterr().err and not out.exists()
    assert archives.main([*arguments, "--exchange", "x", "angry", "sad"]) == 0
    for name in ("source.csv", "target.csv"):
        before, after = (read_manifest(folder / "x" / name).clips for folder in (corpora, out))
        other = {"angry": "sad", "sad": "angry"}
        assert [c.label for c in after] == [other.get(c.label, c.label) for c in before]
        assert [(c.name, c.speaker, c.split) for c in after] == [(c.name, c.speaker, c.split) for c in before]
        assert (out / "y" / name).read_bytes() == (corpora / "y" / name).read_bytes()
    draws = (folder / "x" / "lalm_draws.jsonl" for folder in (corpora, out))
    assert next(draws).read_bytes() == next(draws).read_bytes()
