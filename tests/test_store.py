"""The draws store: what is added stays, whoever else writes, and foreign or damaged files are refused."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from draws_files import line, make_manifest, probs, write_lines

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.errors import DrawsError
from mifuse.teachers.base import Answer, Source
from mifuse.teachers.jsonl import Imported, export_jsonl, import_jsonl, read_jsonl
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.rows import StoredDraw
from mifuse.teachers.store.schema import SCHEMA

A, B = Source("a"), Source("b", "large", "f00d")
FULL = Answer({"angry": 0.25, "sad": 0.75}, "prose {}", {"input": 12}, 0.001, "req-1")


def stored(source: Source = A, clip: str = "c0", draw: int = 0, answer: Answer = FULL) -> StoredDraw:
    return StoredDraw(source, clip, draw, answer)


def test_everything_comes_back_after_reopening(tmp_path: Path) -> None:
    rows = [stored(), stored(draw=1, answer=Answer({"angry": 1, "sad": 0})), stored(B, "c1")]
    with DrawsStore(tmp_path / "d.db") as store:
        assert store.add(rows) == 3
    with DrawsStore(tmp_path / "d.db", read_only=True) as store:
        assert store.sources() == [A, B]
        assert store.keys(A) == {("c0", 0), ("c0", 1)}
        assert [*store.draws(A), *store.draws(B)] == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.db"]


def test_the_first_answer_stays(tmp_path: Path) -> None:
    with DrawsStore(tmp_path / "d.db") as store:
        store.add([stored()])
        assert store.add([stored(answer=Answer({"angry": 1.0})), stored(draw=1)]) == 1
        assert next(store.draws(A)).answer == FULL


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    with DrawsStore(tmp_path / "d.db") as store:
        with pytest.raises(DrawsError, match=r"d.db: draws store unusable \(NOT NULL"):
            store.add([stored(), stored(clip=None)])  # type: ignore[arg-type]
        assert store.keys(A) == set()
        assert store.add([stored()]) == 1


def test_commits_survive_a_power_cut(tmp_path: Path) -> None:
    with DrawsStore(tmp_path / "d.db") as store:
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_several_processes_share_a_new_store(tmp_path: Path) -> None:
    script = """
import sys
from mifuse.teachers.base import Answer, Source
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.rows import StoredDraw
with DrawsStore(sys.argv[1]) as store:
    print(sum(store.add([StoredDraw(Source("a"), f"c{i}", 0, Answer({"angry": 1.0}))]) for i in range(40)))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "d.db")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) for _ in range(3)]
    added = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(added) == 40
    with DrawsStore(tmp_path / "d.db") as store:
        assert len(store.keys(A)) == 40


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_reading_works_beside_a_writer_and_in_a_read_only_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DrawsStore(tmp_path / "d.db") as store:
        store.add([stored()])
        with DrawsStore(tmp_path / "d.db", read_only=True) as reader:
            assert reader.keys(A) == {("c0", 0)}
    monkeypatch.setattr("os.access", lambda *_: False)
    with DrawsStore(tmp_path / "d.db", read_only=True) as reader:
        assert reader.keys(A) == {("c0", 0)}
        with pytest.raises(DrawsError, match=r"readonly database.*copy it to where you may write"):
            reader.add([stored(draw=1)])


def test_a_full_disk_keeps_what_was_stored(tmp_path: Path) -> None:
    with DrawsStore(tmp_path / "d.db") as store:
        store.add([stored()])
        store._db.execute("PRAGMA max_page_count = 10")
        with pytest.raises(DrawsError, match=r"full.*make room and run again"):
            store.add([stored(draw=i, answer=Answer({"angry": 1.0}, "x" * 5000)) for i in range(1, 20)])
        assert store.keys(A) == {("c0", 0)}


def refused(path: Path, read_only: bool = False) -> str:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(DrawsError) as error, DrawsStore(path, read_only):
        pass
    assert (path.read_bytes() if path.is_file() else None) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_foreign_and_damaged_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text('{"path": "c0.wav"}\n' * 100)
    assert "text.db: draws store unusable (file is not a database): name a draws store" in refused(text)

    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE draws (x)")
    foreign.close()
    assert "a database, but not a draws store" in refused(tmp_path / "foreign.db")

    newer = tmp_path / "newer.db"
    with DrawsStore(newer) as store:
        store._db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    assert f"has schema {SCHEMA + 1}, this mifuse knows up to {SCHEMA}: update mifuse" in refused(newer)

    assert "draws store unusable (unable to open" in refused(tmp_path)
    assert "no such folder" in refused(tmp_path / "absent" / "d.db")
    assert "no such draws store" in refused(tmp_path / "absent.db", read_only=True)
    (tmp_path / "empty.db").touch()
    assert "is empty: get draws" in refused(tmp_path / "empty.db", read_only=True)


def test_a_damaged_page_is_one_line(tmp_path: Path) -> None:
    with DrawsStore(tmp_path / "d.db") as store:
        store.add([stored(draw=i) for i in range(500)])
    content = bytearray((tmp_path / "d.db").read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    (tmp_path / "d.db").write_bytes(content)
    with DrawsStore(tmp_path / "d.db") as store, pytest.raises(DrawsError, match=r"malformed.*it is damaged"):
        list(store.draws(A))


# JSONL in and out


def test_import_and_export_give_the_same_lines(tmp_path: Path) -> None:
    manifest, cache = make_manifest(tmp_path, 3), AudioCache()
    rows = [line(i, k) for i in range(3) for k in range(2)] + [
        line(0, 0, teacher="b", model="m", prompt="f00d")
    ]
    draws = read_jsonl(write_lines(tmp_path / "in.jsonl", rows))
    with DrawsStore(tmp_path / "d.db") as store:
        assert import_jsonl(store, draws, manifest, cache) == Imported(7, 0, 0, 0)
        assert import_jsonl(store, draws, manifest, cache) == Imported(0, 7, 0, 0)
        assert export_jsonl(store, tmp_path / "out.jsonl", manifest, cache) == 7
        assert export_jsonl(store, tmp_path / "b.jsonl", manifest, cache, Source("b", "m", "f00d")) == 1
    key = str
    out = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(out, key=key) == sorted(rows, key=key)


def test_import_counts_what_differs_and_what_it_does_not_know(tmp_path: Path) -> None:
    manifest, cache = make_manifest(tmp_path, 2), AudioCache()
    first = read_jsonl(write_lines(tmp_path / "1.jsonl", [line(0, 0), line(1, 0)]))
    other = {"angry": 0.0, "happy": 0.0, "neutral": 0.0, "sad": 1.0}
    second = read_jsonl(write_lines(tmp_path / "2.jsonl", [line(0, 0, probs=other), line(1, 1), line(7, 0)]))
    elsewhere = read_jsonl(write_lines(tmp_path / "3.jsonl", [line(8, 0)]))
    with DrawsStore(tmp_path / "d.db") as store:
        import_jsonl(store, first, manifest, cache)
        assert import_jsonl(store, second, manifest, cache) == Imported(1, 1, 1, 1)
        assert next(
            d for d in store.draws(Source("stand-in")) if d.clip == cache.hash(manifest.clips[0])
        ).answer == (Answer(probs(0, 0)))
        with pytest.raises(DrawsError, match=r"has none of the clips .*\(first: 'c8.wav'\)"):
            import_jsonl(store, elsewhere, manifest, cache)


def test_a_moved_clip_keeps_its_draws(tmp_path: Path) -> None:
    old, new, cache = make_manifest(tmp_path, 1), tmp_path / "new", AudioCache()
    new.mkdir()
    (tmp_path / "c0.wav").rename(new / "renamed.wav")
    (new / "target.csv").write_text("path\nrenamed.wav\n")
    draws = read_jsonl(write_lines(tmp_path / "in.jsonl", [line(0, 0)]))
    moved = read_manifest(new / "target.csv")
    (tmp_path / "c0.wav").write_bytes((new / "renamed.wav").read_bytes())
    with DrawsStore(tmp_path / "d.db") as store:
        import_jsonl(store, draws, old, cache)
        export_jsonl(store, tmp_path / "out.jsonl", moved, cache)
    assert json.loads((tmp_path / "out.jsonl").read_text())["path"] == "renamed.wav"
    with DrawsStore(tmp_path / "d.db") as store, pytest.raises(DrawsError, match="no draws for the clips"):
        export_jsonl(store, tmp_path / "none.jsonl", make_manifest(tmp_path / "others", 1), cache)
    assert not (tmp_path / "none.jsonl").exists()


def test_parts_of_one_file_are_different_clips(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"a")
    (tmp_path / "target.csv").write_text("path,start,end\na.wav,0,1.5\na.wav,1.5,\n")
    manifest, cache = read_manifest(tmp_path / "target.csv"), AudioCache()
    rows = [line(0, 0, path="a.wav", start=0, end=1.5), line(1, 0, path="a.wav", start=1.5)]
    with DrawsStore(tmp_path / "d.db") as store:
        done = import_jsonl(store, read_jsonl(write_lines(tmp_path / "in.jsonl", rows)), manifest, cache)
        assert done == Imported(2, 0, 0, 0)
        assert export_jsonl(store, tmp_path / "out.jsonl", manifest, cache) == 2
    assert {json.loads(text)["start"] for text in (tmp_path / "out.jsonl").read_text().splitlines()} == {
        0.0,
        1.5,
    }
