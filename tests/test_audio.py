"""Audio: every odd file gives samples or one clear line; the cache decodes once and stays bounded."""

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
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mifuse.clips import audio
from mifuse.clips.audio import SAMPLE_RATE, AudioCache, read_audio
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.errors import AudioError
from mifuse_runtime import files
from mifuse_runtime.audio import trim_silence
from tests.bundles import speech


def tone(seconds: float, rate: int = SAMPLE_RATE, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def refused(path: Path, **part: float) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(path, **part)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


# Reading


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000, 192_000])
def test_any_rate(tmp_path: Path, rate: int) -> None:
    samples = read_audio(wav(tmp_path / "a.wav", tone(0.5, rate), rate))
    assert samples.dtype == np.float32
    assert abs(len(samples) - 8000) <= 1
    np.testing.assert_allclose(samples[800:7200], tone(0.5)[800:7200], atol=2e-3)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64"])
def test_any_format(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / f"a.{suffix}", tone(0.5), SAMPLE_RATE)
    assert len(read_audio(tmp_path / f"a.{suffix}")) == 8000


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = tone(0.2)[:, None] * np.linspace(0, 2, channels)
    path = wav(tmp_path / "a.wav", samples.astype(np.float32), subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path), tone(0.2), atol=1e-6)


def test_one_sample_silence_and_full_scale(tmp_path: Path) -> None:
    assert read_audio(wav(tmp_path / "a.wav", np.full(1, 0.5))).tolist() == [0.5]
    assert len(read_audio(wav(tmp_path / "b.wav", np.full(1, 0.5), 192_000))) == 1
    assert not read_audio(wav(tmp_path / "c.wav", np.zeros(4000), 48_000)).any()
    clipped = np.sign(tone(0.2, 44_100)).astype(np.float32)
    assert np.isfinite(read_audio(wav(tmp_path / "d.wav", clipped, 44_100))).all()


def test_ten_minutes(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 48_000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(480_000, np.int16))
    assert len(read_audio(path)) == 600 * SAMPLE_RATE
    assert len(read_audio(path, 599.5)) == SAMPLE_RATE // 2


def test_blocks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wav(tmp_path / "a.wav", np.stack([tone(1.0, 44_100)] * 2, axis=1), 44_100)
    whole = read_audio(path)
    monkeypatch.setattr(files, "PIECE", 1000)
    np.testing.assert_allclose(read_audio(path), whole, atol=1e-6)


def test_part_of_a_file(tmp_path: Path) -> None:
    ramp = np.linspace(-0.9, 0.9, 3 * SAMPLE_RATE).astype(np.float32)
    for path in (wav(tmp_path / "a.wav", ramp), wav(tmp_path / "a.flac", ramp)):
        np.testing.assert_allclose(read_audio(path, 0.5, 1.25), ramp[8000:20000], atol=1e-4)
        np.testing.assert_allclose(read_audio(path, end=0.5), ramp[:8000], atol=1e-4)
        assert len(read_audio(path, 2.5, 3.05)) == 8000  # rounded up by the annotator
        assert "no audio from 2.5 to 4.0 s, the file has 3.000 s" in refused(path, start=2.5, end=4.0)
        assert "no audio from 3.0 s, the file has 3.000 s" in refused(path, start=3.0)


def test_missing_folder_empty_and_foreign_files(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.wav").startswith("cannot be read (No such file or directory)")
    assert refused(tmp_path).startswith("cannot be read (Is a directory)")
    for name, content, message in (
        ("empty.wav", b"", "the file is empty (0 bytes)"),
        ("text.wav", b"not a sound\n" * 50, "not an audio file that can be read (Format not recognised)"),
        ("header.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", "the file is cut short, it has no audio data"),
        ("plain.raw", b"\x00" * 64, "not an audio file that can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        assert refused(tmp_path / name).startswith(message)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "aiff", "au", "w64", "caf"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    soundfile.write(path, noise, SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert any(word in refused(path) for word in ("cut short", "lost sync", "malformed"))


def test_wav_from_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", tone(0.5))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(read_audio(path)) == 8000


def test_flac_from_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.flac", tone(0.5))
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO: total samples unknown
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert len(read_audio(path)) == 8000


def test_zero_length(tmp_path: Path) -> None:
    assert (
        refused(wav(tmp_path / "a.wav", np.zeros(0)))
        == "the file holds no samples, the audio is empty: record it again or remove it"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, value: float) -> None:
    samples = np.stack([tone(0.5), tone(0.5)], axis=1)
    samples[4000, 1] = samples[5000, 0] = value
    path = wav(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert refused(path).startswith("NaN or infinite value at frame 4000 (0.250 s)")
    assert len(read_audio(path, end=0.2)) == 3200


@given(
    st.sampled_from(["wav", "flac", "mp3", "aiff", "au", "caf"]),
    st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), min_size=1, max_size=4),
)
@settings(max_examples=60)
def test_damaged_headers_give_samples_or_one_line(suffix: str, changes: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a.{suffix}")
        soundfile.write(path, tone(0.1), SAMPLE_RATE)
        content = bytearray(path.read_bytes())
        for position, value in changes:
            content[position] = value
        path.write_bytes(content)
        try:
            samples = read_audio(path)
        except AudioError as error:
            assert "\n" not in str(error)
        else:
            assert len(samples)
            assert np.isfinite(samples).all()


def test_absurd_sample_rate(tmp_path: Path) -> None:
    assert refused(wav(tmp_path / "a.wav", tone(0.1), 1)).startswith(
        "the sample rate is 1 Hz, which holds no speech"
    )


# Silence


def test_trims_what_is_40_db_down() -> None:
    loud, quiet, faint = tone(0.5), tone(0.5, level=0.5 * 10 ** (-35 / 20)), tone(0.5, level=0.5 * 10**-2.25)
    samples = np.concatenate([faint, quiet, faint, loud, faint])
    trimmed = trim_silence(samples, SAMPLE_RATE)
    np.testing.assert_array_equal(trimmed, samples[8000:32000])
    assert np.shares_memory(trimmed, samples)


@given(arrays(np.float32, st.integers(1, 3000), elements=st.floats(-1, 1, width=32)), st.integers(0, 2000))
def test_trim_silence_properties(samples: np.ndarray, padding: int) -> None:
    trimmed = trim_silence(samples, SAMPLE_RATE)
    assert 1 <= len(trimmed) <= len(samples)
    assert np.abs(trimmed).max() == np.abs(samples).max()
    np.testing.assert_array_equal(trim_silence(trimmed, SAMPLE_RATE), trimmed)
    if (samples**2).sum() > 1e-12:
        padded = np.concatenate([samples, np.zeros(padding, np.float32)])
        assert len(trim_silence(padded, SAMPLE_RATE)) <= len(samples) + 399


# Cache


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


def test_a_clip_has_a_longest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence of any length has a few kB in FLAC."""
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(30 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    monkeypatch.setattr(audio, "LONGEST", 20.0)
    with pytest.raises(AudioError, match=r"long\.flac: the audio is longer than 20 s: give start and end"):
        read_audio(path)
    assert len(read_audio(path, 5.0, 15.0)) == 10 * SAMPLE_RATE
