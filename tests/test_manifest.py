"""Manifests: what is read, what is refused and with which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mifuse.clips.manifest import COLUMNS, NEAR, Clip, read_manifest, write_manifest
from mifuse.errors import ManifestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    for name in ("a.wav", "b.wav", "c, d.wav"):
        (tmp_path / "clips" / name).write_bytes(b"RIFF")
    return tmp_path


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_reads_all_columns(folder: Path) -> None:
    path = written(
        folder,
        "path,label,speaker,split,start,end,language,sex\n"
        "clips/a.wav,Anger,s1,adapt,0.5,2,pl,F\n"
        "clips/a.wav,,s1,adapt,2,,,\n"
        '"clips/c, d.wav",exc,s2,test,,,,M\n',
    )
    first, second, third = read_manifest(path).clips
    assert first == Clip(
        "clips/a.wav", folder / "clips/a.wav", "angry", "s1", "adapt", 0.5, 2.0, "pl", {"sex": "F"}
    )
    assert (second.label, second.start, second.end) == (None, 2.0, None)
    assert (third.name, third.label, third.split) == ("clips/c, d.wav", "happy", "test")
    assert len({first, second, third}) == 3


def test_select(folder: Path) -> None:
    manifest = read_manifest(written(folder, "path,split\nclips/a.wav,adapt\nclips/b.wav,test\n"))
    assert [clip.name for clip in manifest.select("test").clips] == ["clips/b.wav"]
    assert manifest.select("all") is manifest is manifest.select(None)
    with pytest.raises(ManifestError, match="unknown split 'dev': use one of all, adapt, test"):
        manifest.select("dev")
    with pytest.raises(ManifestError, match="no row has split 'adapt'"):
        manifest.select("test").select("adapt")
    without = read_manifest(written(folder, "path\nclips/a.wav\n"))
    assert without.select("test") is without


def test_byte_order_mark_crlf_and_blank_lines(folder: Path) -> None:
    path = written(folder, "path,label\r\nclips/a.wav,sad\r\n\r\nclips/b.wav,\r\n", "utf-8-sig")
    assert [clip.label for clip in read_manifest(path).clips] == ["sad", None]


def test_any_label_without_a_label_set(folder: Path) -> None:
    assert read_manifest(written(folder, "path,label\nclips/a.wav,Bored\n"), None).clips[0].label == "Bored"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,label\nclips/a.wav,sad\n", r"no `path` column \(found 'x', 'label'\)"),
        ("filename,label\nclips/a.wav,sad\n", "column 'filename': did you mean path"),
        ("path,label,Label\nclips/a.wav,sad,happy\n", "column 'Label': did you mean label"),
        ("path,start_sec\nclips/a.wav,1\n", "column 'start_sec': did you mean start"),
        ("path,label\nclips/a.wav,nan\n", "line 2: label is 'nan': leave it empty"),
        ("path;label\nclips/a.wav;sad\n", r"no `path` column .*: separate columns by commas, not ';'"),
        ("path\tlabel\nclips/a.wav\tsad\n", "separate columns by commas"),
        ("", r"no `path` column \(found nothing\)"),
        ("path,label\n", "no rows under the header: add one row per clip"),
        ("path,path\na,b\n", "column 'path' appears twice"),
        ("path,label\nclips/a.wav,sad\nclips/b.wav,hapy\n", r"'hapy' \(1 row, did you mean happy\?\)"),
        ("path\nclips/a.wav\nclips/b.wav\nclips/a.wav\n", "line 4: 'clips/a.wav' repeats line 2"),
        ("path\nclips/a.wav\n./clips//a.wav\n", "line 3: './clips//a.wav' repeats line 2"),
        ("path\n/etc/passwd\n", "line 2: '/etc/passwd' leaves the manifest's folder"),
        ("path\nC:\\a.wav\n", "leaves the manifest's folder"),
        ("path\n../a.wav\n", "leaves the manifest's folder"),
        ("path\nclips/../../a.wav\n", "leaves the manifest's folder"),
        ("path\n..\\a.wav\n", "leaves the manifest's folder"),
        ("path,label\n,sad\n", "line 2: empty path"),
        ("path,split\nclips/a.wav,train\n", "line 2: unknown split 'train': use one of adapt, test"),
        ("path,split\nclips/a.wav,test\nclips/b.wav,\n", "line 3: empty split"),
        ("path,start\nclips/a.wav,x\n", "line 2: start is 'x': give seconds"),
        ("path,start\nclips/a.wav,-1\n", "line 2: start is '-1'"),
        ("path,end\nclips/a.wav,nan\n", "line 2: end is 'nan'"),
        ("path,end\nclips/a.wav,inf\n", "line 2: end is 'inf'"),
        ("path,start,end\nclips/a.wav,2,1.5\n", "line 2: end 1.5 is not after start 2.0"),
        ("path,end\nclips/a.wav,0\n", "line 2: end 0.0 is not after start 0.0"),
        ("path,label\nclips/c, d.wav,sad\n", "line 2: 3 values under 2 columns: quote"),
        ('path,label\n"clips/a.wav,sad\n', "not CSV"),
        ("path\nclips/a.wav\nclips/x.wav\nclips/y.wav\n", "2 of 3 files are missing: '.*x.wav', '.*y.wav'"),
        ("path\nclips\n", "1 of 1 files are missing"),
        ("path\nclips\\a.wav\n", "1 of 1 files are missing: .*: write / between folders"),
    ],
)
def test_refuses(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(written(folder, text))
    assert "\n" not in str(caught.value)


def test_refuses_other_encodings_and_files(folder: Path) -> None:
    with pytest.raises(ManifestError, match="not UTF-8"):
        read_manifest(written(folder, "path\nclips/ü.wav\n", "latin-1"))
    with pytest.raises(ManifestError, match=r"no such manifest: make one with `mifuse prepare FOLDER"):
        read_manifest(folder / "absent.csv")


def test_write_keeps_what_was_read(folder: Path) -> None:
    path = written(
        folder, 'path,label,start,end,sex\n"clips/c, d.wav",sad,0.1,2.25,F\nclips/a.wav,,,,"x ""y"""\n'
    )
    clips = read_manifest(path).clips
    write_manifest(folder / "copy.csv", clips)
    assert read_manifest(folder / "copy.csv").clips == clips
    assert (folder / "copy.csv").read_text().startswith("path,label,start,end,sex\n")
    write_manifest(folder / "clips" / "copy.csv", clips)
    assert read_manifest(folder / "clips" / "copy.csv").clips[0].name == "c, d.wav"


def _near(name: str) -> bool:
    """Whether a column is one of ours or is refused because it could be meant as one."""
    meant = name.lower().replace(" ", "_")
    return meant in COLUMNS or meant in NEAR


text = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
columns = st.dictionaries(text.map(str.strip).filter(lambda name: not _near(name)), text, max_size=3)
seconds = st.floats(0.01, 1e6)


@given(st.lists(st.tuples(text, seconds, columns), min_size=1, max_size=5))
@example([("a\rb", 1.0, {"c\rd": ""})])
def test_any_clips_survive_writing(rows: list[tuple[str, float, dict[str, str]]]) -> None:
    """Quotes, commas, line ends and any script in any column."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.wav").write_bytes(b"")
        clips = [
            Clip("a.wav", folder / "a.wav", "sad", speaker.strip() or None, None, i, i + length, None, extra)
            for i, (speaker, length, extra) in enumerate(rows)
        ]
        write_manifest(folder / "m.csv", clips)
        read = read_manifest(folder / "m.csv").clips
        for before, after in zip(clips, read, strict=True):
            assert replace(after, extra={}) == replace(before, extra={})
            assert before.extra.items() <= after.extra.items()


def test_write_refuses_clips_outside_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    clips = [Clip("a.wav", folder / "clips" / "a.wav")]
    with pytest.raises(ManifestError, match="is outside its folder: write the manifest at or above"):
        write_manifest(tmp_path / "other" / "manifest.csv", clips)
    with pytest.raises(ManifestError, match="not UTF-8: rename that file"):
        write_manifest(folder / "manifest.csv", [Clip("a", folder / "\udcff.wav")])
    assert sorted(path.name for path in folder.iterdir()) == ["clips"]


def test_hundred_thousand_rows_of_a_file(folder: Path) -> None:
    """Segments of one recording: the file is looked up once; a quadratic check would never end."""
    rows = "".join(f"clips/a.wav,{i},{i + 1}\n" for i in range(100_000))
    assert len(read_manifest(written(folder, "path,start,end\n" + rows))) == 100_000


def test_real_corpora(corpora: Path) -> None:
    for name, rows, test in (("ravdess", 559, 168), ("nemo", 2356, 719), ("koremo", 240, 80)):
        manifest = read_manifest(corpora / name / "target.csv")
        assert (len(manifest), len(manifest.select("test"))) == (rows, test)
