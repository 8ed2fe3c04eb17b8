"""Audio files on the device: WAV, the rest through soundfile, one clear line for what cannot be read."""

from __future__ import annotations

import struct
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mifuse_runtime import AudioError, read_audio
from tests.bundles import RATE, tone

Kind = tuple[int, int]  # tag and bits


def wav(samples: np.ndarray, tag: int, bits: int, rate: int = RATE, extensible: bool = False) -> bytes:
    """A WAV file of raw samples (n, channels), with a chunk before the audio that readers must skip."""
    channels = samples.shape[1]
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * frame, frame, bits)
    if extensible:
        fmt += struct.pack("<HHIH", 22, bits, 0, tag) + bytes.fromhex("000000001000800000aa00389b71")
    data = samples.tobytes()
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for name, content in ((b"LIST", b"odd"), (b"fmt ", fmt), (b"data", data))
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def encoded(samples: np.ndarray, tag: int, bits: int) -> np.ndarray:
    """Floats in [-1, 1] as a WAV of that kind stores them."""
    if tag == 3:
        return samples.astype(f"<f{bits // 8}")
    if bits == 8:
        return np.round(samples * 127 + 128).astype(np.uint8)
    whole = np.round(samples.astype(np.float64) * (2 ** (bits - 1) - 1)).astype("<i4")
    if bits == 24:
        return np.ascontiguousarray(whole[..., None].view(np.uint8)[..., :3])
    return whole.astype(f"<i{bits // 8}")


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(("tag", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
def test_every_wav(tmp_path: Path, tag: int, bits: int, extensible: bool) -> None:
    stereo = np.stack([tone(0.3), 0.5 * tone(0.3)], axis=1)
    (tmp_path / "a.wav").write_bytes(wav(encoded(stereo, tag, bits), tag, bits, extensible=extensible))
    found = read_audio(tmp_path / "a.wav")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, stereo.mean(axis=1), atol=6e-3 if bits == 8 else 1e-4)


def test_standard_librarys_wav_at_another_rate(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((8, 2, 192_000, 0, "NONE", ""))
        file.writeframes(np.repeat(encoded(tone(1, rate=192_000), 1, 16)[:, None], 8, axis=1).tobytes())
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav")[200:-200], tone(1)[200:-200], atol=1e-3)


def test_length_unknown_to_the_writer(tmp_path: Path) -> None:
    content = wav(encoded(tone(0.1), 1, 16)[:, None], 1, 16)
    at = content.index(b"data") + 4
    (tmp_path / "piped.wav").write_bytes(content[:at] + b"\xff" * 4 + content[at + 4 :])
    assert read_audio(tmp_path / "piped.wav").size == RATE // 10


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
def test_other_formats(tmp_path: Path, name: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / name, tone(1, rate=44_100), 44_100)
    found = read_audio(tmp_path / name)
    assert found.size == RATE
    assert np.abs(found - tone(1))[800:-800].max() < 0.02


GOOD = wav(encoded(tone(0.1), 1, 16)[:, None], 1, 16)
BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is not audio at all", "not a"),
    "header only": (GOOD[:40], "cut short"),
    "no data chunk": (GOOD[: GOOD.index(b"data")], "cut short"),
    "truncated": (GOOD[:-100], "cut short (3100 of 3200 bytes"),
    "no samples": (wav(np.zeros((0, 1), "<i2"), 1, 16), "empty"),
    "NaN": (wav(np.full((9, 1), np.nan, "<f4"), 3, 32), "NaN"),
    "integers as floats": (wav(np.full((9, 1), 3e4, "<f4"), 3, 32), "reach 30000"),
    "rate 0": (wav(np.zeros((9, 1), "<i2"), 1, 16, rate=0), "sample rate is 0 Hz"),
    "900 channels": (wav(np.zeros((9, 900), "<i2"), 1, 16), "declares 900 channels"),
    "no channels": (
        GOOD.replace(struct.pack("<HHI", 1, 1, RATE), struct.pack("<HHI", 1, 0, RATE)),
        "declares 0 channels",
    ),
}


@pytest.mark.parametrize("installed", [True, False], ids=["soundfile", "bare"])
@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, installed: bool) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "soundfile", None)
    content, word = BAD[case]
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"absent\.wav: cannot be read \(No such file"):
        read_audio(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="Is a directory"):
        read_audio(tmp_path)


def test_flac_cut_short(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    noise = 0.1 * np.random.default_rng(0).standard_normal(30_000)
    soundfile.write(tmp_path / "a.flac", noise, RATE)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"a\.flac: "):
        read_audio(tmp_path / "a.flac")


def test_what_to_do_without_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setenv("PATH", str(tmp_path))  # no ffmpeg
    (tmp_path / "a.flac").write_bytes(b"fLaC" + bytes(40))
    with pytest.raises(AudioError, match="convert it to WAV, or pip install soundfile"):
        read_audio(tmp_path / "a.flac")


@given(
    kind=st.sampled_from([(1, 8), (1, 16), (1, 24), (3, 32), (3, 64)]),
    edits=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=6),
    end=st.integers(0, 400),
)
@settings(max_examples=150, deadline=None)
def test_damaged_headers(
    tmp_path_factory: pytest.TempPathFactory, kind: Kind, edits: list[Kind], end: int
) -> None:
    content = bytearray(wav(encoded(tone(0.01), *kind)[:, None], *kind))
    for at, value in edits:
        content[at % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.wav"
    path.write_bytes(content[: len(content) - end] if edits else content)
    try:
        found = read_audio(path)
    except AudioError as error:
        assert "\n" not in str(error)
    else:
        assert found.size and np.isfinite(found).all()
