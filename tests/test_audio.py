"""Audio: every odd file gives samples or one clear line."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mifuse.clips import audio
from mifuse.clips.audio import SAMPLE_RATE, read_audio
from mifuse.errors import AudioError
from mifuse_runtime import files
from mifuse_runtime.audio import trim_silence


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


def test_a_clip_has_a_longest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence of any length has a few kB in FLAC."""
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(30 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    monkeypatch.setattr(audio, "LONGEST", 20.0)
    with pytest.raises(AudioError, match=r"long\.flac: the audio is longer than 20 s: give start and end"):
        read_audio(path)
    assert len(read_audio(path, 5.0, 15.0)) == 10 * SAMPLE_RATE
