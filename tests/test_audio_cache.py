"""The cache of decoded audio: decodes once, stays bounded, shared by processes, and whole after a kill."""

from __future__ import annotations

import errno
import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import soundfile

from mifuse.clips import audio
from mifuse.clips.audio import SAMPLE_RATE, AudioCache, read_audio
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.errors import AudioError
from tests.bundles import speech
from tests.test_audio import tone, wav


@pytest.fixture
def cache(tmp_path: Path) -> AudioCache:
    return AudioCache(tmp_path / "cache")


def old(path: Path, seconds: int = 100) -> Path:
    """Files younger than two seconds are not trusted to stay as they are."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - seconds * 10**9))
    return path


def clip(path: Path, start: float | None = None, end: float | None = None) -> Clip:
    return Clip(path.name, path, start=start, end=end)


def test_decodes_once(tmp_path: Path, cache: AudioCache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(wav(tmp_path / "a.wav", tone(0.5), subtype="FLOAT"))
    first = cache.samples(clip(path))
    np.testing.assert_allclose(first, tone(0.5), atol=1 / 32767)
    assert first.dtype == np.float32
    monkeypatch.setattr(audio, "read_audio", None)
    monkeypatch.setattr(audio, "_sha256", None)
    for other in (cache, AudioCache(tmp_path / "cache"), pickle.loads(pickle.dumps(cache))):
        np.testing.assert_array_equal(other.samples(clip(path)), first)


def test_trims_by_default(tmp_path: Path, cache: AudioCache) -> None:
    path = wav(tmp_path / "a.wav", np.concatenate([np.zeros(8000), tone(0.5)]))
    assert len(cache.samples(clip(path))) == 8000
    assert len(cache.samples(clip(path), trim=False)) == 16000


def test_hash_is_of_the_content(tmp_path: Path, cache: AudioCache) -> None:
    path = wav(tmp_path / "a.wav", tone(0.5))
    copy = tmp_path / "copy.wav"
    copy.write_bytes(path.read_bytes())
    hashes = [cache.hash(clip(path)), cache.hash(clip(path, 0.1)), cache.hash(clip(path, 0.1, 0.2))]
    assert len(set(hashes)) == 3
    assert [cache.hash(clip(copy)), cache.hash(clip(copy, 0.1)), cache.hash(clip(copy, 0.1, 0.2))] == hashes
    assert all(len(bytes.fromhex(digest)) == 32 for digest in hashes)
    wav(path, tone(0.5, level=0.4))
    assert cache.hash(clip(path)) != hashes[0]
    assert len(cache.samples(clip(path, 0.1, 0.2), trim=False)) == 1600


def test_louder_than_full_scale_keeps_its_shape(tmp_path: Path, cache: AudioCache) -> None:
    path = wav(tmp_path / "a.wav", tone(0.5, level=4.0), subtype="FLOAT")
    np.testing.assert_allclose(cache.samples(clip(path)), tone(0.5, level=1.0), atol=2e-3)


def test_stays_bounded_and_drops_the_least_recently_used(tmp_path: Path) -> None:
    cache = AudioCache(tmp_path / "cache", max_bytes=100_000)
    clips = [clip(wav(tmp_path / f"{i}.wav", tone(0.5, level=0.01 * (i + 1)))) for i in range(12)]
    for i, each in enumerate(clips):
        cache.samples(each)
        file = cache._file(cache.hash(each))
        if file.exists():
            old(file, 10_000 - i)
        cache.samples(clips[0])  # used again and again: stays
    files = {file.stem for file in (tmp_path / "cache").rglob("*.npy")}
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.npy")) <= 100_000
    assert cache.hash(clips[0]) in files
    assert cache.hash(clips[1]) not in files
    assert len(cache.samples(clips[1])) == 8000
    tiny = AudioCache(tmp_path / "tiny", max_bytes=10)
    assert len(tiny.samples(clips[0])) == len(tiny.samples(clips[0])) == 8000


def test_damaged_entry_is_decoded_again(tmp_path: Path, cache: AudioCache) -> None:
    each = clip(wav(tmp_path / "a.wav", tone(0.5)))
    first = cache.samples(each)
    file = cache._file(cache.hash(each))
    for content in (b"", b"\x93NUMPY", file.read_bytes()[:500]):
        file.write_bytes(content)
        np.testing.assert_array_equal(cache.samples(each), first)


def test_leftovers_of_killed_processes_go(tmp_path: Path, cache: AudioCache) -> None:
    each = clip(wav(tmp_path / "a.wav", tone(0.1)))
    cache.samples(each)
    part = cache._file(cache.hash(each)).with_suffix(".1-1.part")
    part.write_bytes(b"x")
    cache._evict()
    assert part.exists()
    old(part, 7200)
    cache._evict()
    assert not part.exists()


def test_unusable_folder_and_missing_file(tmp_path: Path, cache: AudioCache) -> None:
    each = clip(wav(tmp_path / "a.wav", tone(0.1)))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        AudioError, match=r"cannot use the audio cache .*: make room, delete it, or set MIFUSE"
    ):
        AudioCache(tmp_path / "file").samples(each)
    cache.folder.mkdir(parents=True)
    (cache.folder / "index.db").write_bytes(b"not a database" * 100)
    with pytest.raises(AudioError, match=r"cannot use the audio cache .*file is not a database"):
        cache.samples(each)
    with pytest.raises(AudioError, match=r"absent\.wav: cannot be read"):
        cache.samples(clip(tmp_path / "absent.wav"))


def test_full_disk(tmp_path: Path, cache: AudioCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: BinaryIO, _array: np.ndarray) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(
        AudioError, match=r"cannot use the audio cache .*No space left on device.*: make room"
    ):
        cache.samples(clip(wav(tmp_path / "a.wav", tone(0.1))))
    assert not [path for path in cache.folder.rglob("*") if path.suffix in (".npy", ".part")]


def test_processes_evict_from_under_each_other(tmp_path: Path) -> None:
    clips = [clip(old(wav(tmp_path / f"{i}.wav", tone(0.2, level=0.05 * (i + 1))))) for i in range(10)]
    children = []
    for seed in range(3):
        child = os.fork()
        if not child:
            cache = AudioCache(tmp_path / "cache", max_bytes=20_000)
            order = np.random.default_rng(seed).integers(0, 10, 60)
            os._exit(0 if all(len(cache.samples(clips[i])) == 3200 for i in order) else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.npy")) <= 40_000


def test_threads_and_forks_share_it(tmp_path: Path, cache: AudioCache) -> None:
    clips = [clip(old(wav(tmp_path / f"{i}.wav", tone(0.2, level=0.05 * (i + 1))))) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        lengths = list(pool.map(lambda each: len(cache.samples(each)), clips * 8))
    assert set(lengths) == {3200}
    child = os.fork()
    if not child:
        cache._known.clear()
        os._exit(0 if all(len(cache.samples(each)) == 3200 for each in clips) else 1)
    assert os.waitpid(child, 0)[1] == 0
    cache._known.clear()
    assert len(cache.samples(clips[0])) == 3200


def test_kill_while_filling(tmp_path: Path) -> None:
    """kill -9 in the middle of decoding: what is there is whole, the rest is decoded next time."""
    clips = [clip(old(wav(tmp_path / f"{i}.wav", tone(1.0, level=0.01 + i / 1000)))) for i in range(200)]
    script = f"""
        from pathlib import Path
        from mifuse.clips.audio import AudioCache
        from mifuse.clips.manifest import Clip
        cache = AudioCache(Path({str(tmp_path / "cache")!r}))
        for i in range(200):
            path = Path({str(tmp_path)!r}) / f"{{i}}.wav"
            cache.samples(Clip(path.name, path))
            if i == 20: print("going", flush=True)
    """
    root = Path(audio.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "runtime")])}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout
    assert process.stdout.readline() == b"going\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = AudioCache(tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.npy"))) >= 21
    assert {len(cache.samples(each)) for each in clips} == {16000}


def test_real_recordings(corpora: Path, tmp_path: Path) -> None:
    cache = AudioCache(tmp_path)
    seconds: dict[str, list[float]] = {}
    for name in ("ravdess", "nemo", "koremo"):
        for each in read_manifest(corpora / name / "source.csv").clips[::50]:
            whole, speech = cache.samples(each, trim=False), cache.samples(each)
            assert abs(len(whole) / SAMPLE_RATE - float(each.extra["duration_s"])) < 2e-3
            np.testing.assert_allclose(whole, read_audio(each.path), atol=1 / 32767)
            seconds.setdefault(name, []).append((len(whole) - len(speech)) / SAMPLE_RATE)
    assert np.mean(seconds["ravdess"]) > 1.0  # about a second of near-silence on each side


def test_another_recording_of_the_same_size_and_time(tmp_path: Path) -> None:
    """`cp -p`, `rsync --times`, a tool that puts the time back."""
    first, second = speech(1.0), speech(1.0, seed=1)
    path, cache = tmp_path / "a.wav", AudioCache(tmp_path / "cache")
    soundfile.write(path, first, SAMPLE_RATE)
    os.utime(path, ns=(10**18, 10**18))
    clip = Clip("a.wav", path)
    before = cache.hash(clip)
    soundfile.write(path, second, SAMPLE_RATE)
    os.utime(path, ns=(10**18, 10**18))
    for looks in (cache, AudioCache(tmp_path / "cache")):
        assert looks.hash(clip) != before
        np.testing.assert_allclose(looks.samples(clip, trim=False), second, atol=1e-4)


def test_entries_of_the_cache_are_checked(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.wav", AudioCache(tmp_path / "cache")
    soundfile.write(path, speech(1.0), SAMPLE_RATE)
    os.utime(path, ns=(10**18, 10**18))
    clip = Clip("a.wav", path)
    wanted = cache.samples(clip)
    (entry,) = cache.folder.rglob("*.npy")
    whole = entry.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    others = [np.zeros(9, np.float64), np.zeros((3, 3), np.int16), np.zeros(0, np.int16)]
    for content in (bytes(changed), whole[:-16], whole[:100], b"", whole + b"\0", *map(saved, others)):
        entry.write_bytes(content)
        np.testing.assert_array_equal(cache.samples(clip), wanted)
        assert entry.read_bytes() == whole, "it is written again"


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
