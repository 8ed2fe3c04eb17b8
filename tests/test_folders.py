"""Plain folders: classes from folder names, or none; splits that keep speakers apart."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mifuse.clips.folders import scan
from mifuse.clips.labels import LABELS, Naming
from mifuse.clips.manifest import Clip
from mifuse.clips.preparation import split_speakers
from mifuse.errors import ManifestError


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_class_folders_under_any_alias_and_depth(tmp_path: Path) -> None:
    made(tmp_path, "Anger/a.wav", "spk1/happiness/b.flac", "sad/spk2/c.OGG", "fear/d.wav", "e.wav")
    found = scan(tmp_path)
    assert found.corpus == "folders"
    assert {clip.name: clip.label for clip in found.clips} == {
        "Anger/a.wav": "angry",
        "spk1/happiness/b.flac": "happy",
        "sad/spk2/c.OGG": "sad",
    }
    assert found.left_out == {"fear": 1, "no class folder": 1}
    mapped = scan(tmp_path, naming=Naming(LABELS, renamed={"fear": "sad"}))
    assert Counter(clip.label for clip in mapped.clips) == {"angry": 1, "happy": 1, "sad": 2}


def test_class_folders_with_numbers_or_fillers(tmp_path: Path) -> None:
    made(tmp_path, "01_Angry/a.wav", "02 Happy/b.wav", "sad-speech/c.wav", "03_Music/d.wav")
    found = scan(tmp_path)
    assert found.corpus == "folders" and found.left_out == {"03_music": 1}
    assert [clip.label for clip in found.clips] == ["angry", "happy", "sad"]
    persons = made(tmp_path / "persons", "Joy Smith/a.wav", "Sad Harry/b.wav", "Anna 2/c.wav")
    assert scan(persons).corpus == "flat"


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are text there")
def test_what_is_no_file_and_no_text(tmp_path: Path) -> None:
    made(tmp_path, "angry/a.wav", "sad/b.wav")
    os.mkfifo(tmp_path / "sad" / "pipe.wav")
    (tmp_path / "sad" / "link.wav").symlink_to("nowhere.wav")
    Path(os.fsdecode(os.fsencode(tmp_path / "sad") + b"/caf\xe9.wav")).write_bytes(b"")
    found = scan(tmp_path)
    assert len(found.clips) == 2 and found.lost == 1
    assert found.left_out == {"no file (a pipe, a broken link)": 2, "a name that is not UTF-8: rename it": 1}


def test_class_folders_in_another_language(tmp_path: Path) -> None:
    made(tmp_path, "Wut/a.wav", "Freude/b.wav")
    found = scan(tmp_path, naming=Naming(LABELS))
    assert [clip.label for clip in found.clips] == ["happy", "angry"]


def test_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    made(tmp_path, "b.wav", "2024/a.wav", "s/c.wav", "._b.wav", ".hidden.wav", "notes.txt")
    found = scan(tmp_path)
    assert found.corpus == "flat"
    assert [(clip.name, clip.label, clip.speaker) for clip in found.clips] == [
        ("b.wav", None, None),
        ("2024/a.wav", None, None),
        ("s/c.wav", None, None),
    ]
    with pytest.raises(ManifestError, match=r"flat has no such emotion \(it has: none"):
        scan(tmp_path, "flat", Naming(LABELS, renamed={"fear": "sad"}))


def test_corpus_can_be_forced(tmp_path: Path) -> None:
    made(tmp_path, "happy/03-01-05-01-01-01-01.wav")
    assert scan(tmp_path).clips[0].label == "angry"
    assert scan(tmp_path, "folders").clips[0].label == "happy"
    assert scan(tmp_path, "flat").clips[0].label is None


def test_one_odd_file_does_not_hide_the_corpus(tmp_path: Path) -> None:
    made(tmp_path, "03-01-05-01-01-01-01.wav", "03-01-05-01-01-02-01.wav", "calibration tone.wav")
    found = scan(tmp_path)
    assert (found.corpus, len(found.clips)) == ("ravdess", 2)
    assert found.left_out == {"not in the corpus's naming": 1}


def test_refuses_missing_empty_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder: name the folder that holds the recordings"):
        scan(tmp_path / "absent")
    with pytest.raises(ManifestError, match=r"no audio files \(it is empty\)"):
        scan(tmp_path)
    made(tmp_path, "a.m4a", "b.m4a", "c")
    with pytest.raises(ManifestError, match=r"no audio files \(found \.m4a 2, no suffix 1\): convert them"):
        scan(tmp_path)


def clips(counts: dict[str, int]) -> list[Clip]:
    return [Clip(f"{s}{i}", Path(f"/{s}{i}"), "sad", s) for s, count in counts.items() for i in range(count)]


@given(
    st.dictionaries(st.text(min_size=1), st.integers(1, 9), min_size=2), st.floats(0.01, 0.99), st.integers()
)
def test_splits_never_share_a_speaker(counts: dict[str, int], share: float, seed: int) -> None:
    result = split_speakers(clips(counts), share, seed)
    sides = {split: {clip.speaker for clip in result if clip.split == split} for split in ("adapt", "test")}
    assert sides["adapt"]
    assert sides["test"]
    assert not sides["adapt"] & sides["test"]
    size = sum(clip.split == "test" for clip in result)
    assert abs(size - share * len(result)) <= max(counts.values())
    assert result == split_speakers(clips(counts), share, seed)


def test_named_test_speakers() -> None:
    result = split_speakers(clips({"a": 2, "b": 1, "c": 1}), ["b"])
    assert [clip.split for clip in result] == ["adapt", "adapt", "test", "adapt"]
    with pytest.raises(ManifestError, match="no speaker 'x': use some of a, b"):
        split_speakers(clips({"a": 2, "b": 1}), ["x"])
    with pytest.raises(ManifestError, match="2 of 2 speakers in test"):
        split_speakers(clips({"a": 2, "b": 1}), ["a", "b"])
    with pytest.raises(ManifestError, match="0 of 1 speakers in test"):
        split_speakers(clips({"a": 2}), 0.5)
    with pytest.raises(ManifestError, match="1 clips have no speaker"):
        split_speakers([Clip("a", Path("/a"))], 0.5)
