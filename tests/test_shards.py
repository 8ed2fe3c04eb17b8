import multiprocessing
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from mifuse.clips import shards
from mifuse.clips.audio import AudioCache
from mifuse.clips.keys import VERSIONS
from mifuse.clips.manifest import Clip
from mifuse.clips.shards import table
from mifuse.errors import AudioError

CLIPS = 7


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Seven clips, two a piece; only the content of their files counts here."""
    monkeypatch.setattr(shards, "SHARD", 2)
    for i, clip in enumerate(clips_of(tmp_path)):
        clip.path.write_bytes(bytes([i]))
    return clips_of(tmp_path)


def clips_of(folder):
    return [Clip(f"{i}.wav", folder / f"{i}.wav") for i in range(CLIPS)]


class Rows:
    """Computes a row from a clip's name, and remembers for which clips."""

    def __init__(self):
        self.seen = []

    def __call__(self, part):
        self.seen += [clip.name for clip in part]
        return np.array([[float(clip.name[0]), 1.0] for clip in part])


def rows(clips, folder, compute, key="key"):
    return table(clips, AudioCache(folder / "cache"), "kind", key, compute).in_memory()


def test_each_clip_is_computed_once(clips, tmp_path):
    compute = Rows()
    for _ in range(2):
        assert rows(clips, tmp_path, compute)[:, 0].tolist() == list(range(CLIPS))
    assert compute.seen == [clip.name for clip in clips]
    assert rows(clips, tmp_path, compute, key="other").shape == (CLIPS, 2)
    assert len(compute.seen) == 2 * CLIPS


def test_pieces_are_memory_mapped(clips, tmp_path):
    joined = table(clips, AudioCache(tmp_path / "cache"), "kind", "key", Rows())
    assert len(joined) == CLIPS
    assert [len(piece) for piece in joined.files] == [2, 2, 2, 1]
    assert all(isinstance(piece, np.memmap) for piece in joined.files)
    assert [joined[i : i + 1].tolist() for i in (0, 3, 6)] == [[[0, 1]], [[3, 1]], [[6, 1]]]


def test_new_clips_at_the_end_leave_the_rest(clips, tmp_path):
    rows(clips[:4], tmp_path, Rows())
    compute = Rows()
    rows(clips, tmp_path, compute)
    assert compute.seen == ["4.wav", "5.wav", "6.wav"]


def test_a_changed_file_is_computed_again(clips, tmp_path):
    rows(clips, tmp_path, Rows())
    clips[2].path.write_bytes(b"another recording")
    compute = Rows()
    rows(clips, tmp_path, compute)
    assert compute.seen == ["2.wav", "3.wav"]


def test_a_cut_file_is_computed_again(clips, tmp_path):
    whole = rows(clips, tmp_path, Rows())
    file = sorted((tmp_path / "cache" / f"audio-{VERSIONS['audio']}" / "kind").glob("*.npy"))[0]
    os.truncate(file, file.stat().st_size - 3)
    compute = Rows()
    assert np.array_equal(rows(clips, tmp_path, compute), whole)
    assert 1 <= len(compute.seen) <= 2


def test_a_failure_keeps_what_is_done(clips, tmp_path):
    compute = Rows()

    def fails(part):
        if part[0].name == "4.wav":
            raise AudioError("4.wav: broken")
        return compute(part)

    with pytest.raises(AudioError, match=r"4\.wav"):
        rows(clips, tmp_path, fails)
    kept = list((tmp_path / "cache" / f"audio-{VERSIONS['audio']}" / "kind").iterdir())
    assert sorted(file.suffix for file in kept) == [".npy", ".npy"]
    rows(clips, tmp_path, compute)
    assert compute.seen == [clip.name for clip in clips]


def test_a_missing_file_is_named(clips, tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav"):
        rows([replace(clips[0], path=tmp_path / "gone.wav")], tmp_path, Rows())


def shares(folder):
    """One of two processes: notes which clips it computes, and is busy until the other has begun too."""
    shards.SHARD = 2

    def compute(part):
        with (folder / f"{os.getpid()}.seen").open("a") as file:
            file.writelines(f"{clip.name}\n" for clip in part)
        deadline = time.monotonic() + 60
        while len(list(folder.glob("*.seen"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return Rows()(part)

    assert rows(clips_of(folder), folder, compute)[:, 0].tolist() == list(range(CLIPS))


def test_processes_share_the_work(clips, tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=shares, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    seen = [file.read_text().split() for file in tmp_path.glob("*.seen")]
    assert len(seen) == 2  # each had a part in it
    assert sorted(seen[0] + seen[1]) == [clip.name for clip in clips]  # and none did what the other had done


def dies(folder):
    shards.SHARD = 2

    def compute(_):
        (folder / "busy").touch()
        time.sleep(120)

    rows(clips_of(folder), folder, compute)


def test_a_killed_process_leaves_no_lock(clips, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=dies, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "busy").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join(60)
    assert rows(clips, tmp_path, Rows()).shape == (CLIPS, 2)
