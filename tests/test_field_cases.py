"""What people who do this job have in their folders: each kind gives its answer, or one true line."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mifuse_runtime import AudioError, Recognizer, read_audio
from mifuse_runtime.__main__ import main
from mifuse_runtime.codings import pcm
from mifuse_runtime.settings import Settings
from tests.bundles import RATE, make_bundle, speech

VOICE = speech(2.0, pitch=170.0)
LENGTHS = (0, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 36)


def wav(samples: np.ndarray, rate: int = RATE, declared: int | None = None, more: bytes = b"") -> bytes:
    """16-bit PCM of (n,) or (n, channels), whose data chunk claims to have `declared` bytes."""
    raw = np.round(samples * 32767).astype("<i2").tobytes()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    length = len(raw) if declared is None else declared
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + more + b"data" + struct.pack("<I", length) + raw
    return b"RIFF" + struct.pack("<I", min(length + 36, 0xFFFFFFFF)) + body


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("field") / "bundle", settings=Settings())


@pytest.mark.parametrize("declared", [*LENGTHS, VOICE.size * 2 + 16, VOICE.size])
def test_lengths_that_writers_leave(declared: int) -> None:
    found = read_audio(io.BytesIO(wav(VOICE, declared=declared)))
    np.testing.assert_allclose(found, VOICE, atol=1e-4)


def test_a_cut_file_is_refused_and_an_odd_chunk_without_pad_is_not() -> None:
    whole = wav(VOICE)
    with pytest.raises(
        AudioError, match=r"cut short \(20000 of 64000 bytes of audio\): copy or record it again"
    ):
        read_audio(io.BytesIO(whole[:20_044]))
    for odd in (b"LIST\x03\0\0\0abc\0", b"LIST\x03\0\0\0abc"):
        assert read_audio(io.BytesIO(wav(VOICE, more=odd))).size == VOICE.size
    with pytest.raises(AudioError, match="AppleDouble"):
        read_audio(io.BytesIO(b"\x00\x05\x16\x07" + bytes(100)))


def test_mp3_cut_joined_without_tag_and_from_the_middle() -> None:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    long = np.tile(VOICE, 5)
    soundfile.write(file, long, RATE, format="MP3")
    raw = file.getvalue()
    whole = read_audio(io.BytesIO(raw))
    assert abs(whole.size - long.size) < 1200
    for _ in range(3):  # what was decoded before must not appear
        with pytest.raises(AudioError, match=r"cut short \(\d+ of \d+ frames of MP3\)"):
            read_audio(io.BytesIO(raw[: len(raw) * 6 // 10]))
    assert read_audio(io.BytesIO(raw + raw)).size == 2 * whole.size
    tag = raw.index(b"Info") if b"Info" in raw else raw.index(b"Xing")
    untagged = raw[raw.index(b"\xff", tag) :]
    assert abs(read_audio(io.BytesIO(untagged)).size - long.size) < 3000
    assert 0.8 < read_audio(io.BytesIO(raw[5001:])).size / (long.size * (1 - 5001 / len(raw))) < 1.2


@pytest.mark.parametrize(("subtype", "rate"), [("GSM610", 8000), ("G721_32", 8000), ("IMA_ADPCM", RATE)])
def test_a_batch_goes_on_behind_codings_that_cannot_seek(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], subtype: str, rate: int
) -> None:
    soundfile = pytest.importorskip("soundfile")
    (tmp_path / "a.wav").write_bytes(wav(VOICE))
    soundfile.write(tmp_path / "m.wav", speech(2.0, rate), rate, subtype=subtype, format="WAV")
    (tmp_path / "z.wav").write_bytes(wav(VOICE)[:9000])
    assert main(["predict", str(bundle), str(tmp_path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert [Path(json.loads(line)["path"]).name for line in out.splitlines()] == ["a.wav", "m.wav"]
    assert err.count("\n") == 1 and "z.wav: the file is cut short" in err


def test_a_file_on_stdin_is_read_as_one(bundle: Path, tmp_path: Path) -> None:
    stereo = np.repeat(speech(3.0, 48_000)[:, None], 2, axis=1)
    (tmp_path / "a.wav").write_bytes(wav(stereo, 48_000))
    command = [sys.executable, "-m", "mifuse_runtime", "predict", str(bundle), "--json"]
    answers = []
    for names, stdin in ((["-"], (tmp_path / "a.wav").read_bytes()), ([str(tmp_path / "a.wav")], b"")):
        done = subprocess.run([*command, *names], input=stdin, capture_output=True, check=True)
        answers.append(json.loads(done.stdout)["scores"])
    assert answers[0] == answers[1]


def test_laws_of_telephony_are_read_without_soundfile(monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile")
    files = {}
    for subtype in ("ULAW", "ALAW"):
        files[subtype] = io.BytesIO()
        soundfile.write(files[subtype], VOICE, RATE, subtype=subtype, format="WAV")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for subtype, encoding in (("ULAW", "mulaw"), ("ALAW", "alaw")):
        np.testing.assert_allclose(read_audio(files[subtype]), VOICE, atol=0.02)
        raw = files[subtype].getvalue()
        start = raw.index(b"data") + 8
        samples = pcm(raw[start : start + VOICE.size], encoding, 1)[:, 0]
        np.testing.assert_allclose(samples, VOICE, atol=0.02)


def test_no_emotion_without_a_voice(bundle: Path, tmp_path: Path) -> None:
    time = np.arange(48_000) / RATE
    noise = np.random.default_rng(0).standard_normal(32_000)
    clicks = np.zeros(32_000)
    clicks[::4000] = 0.9
    silent = {
        "silence": np.zeros(32_000),
        "hiss": 0.01 * noise,
        "loud hiss": 0.2 * noise,
        "ringback": 0.3 * np.sin(2 * np.pi * 425 * time),
        "keys": 0.3 * np.sin(2 * np.pi * 697 * time) + 0.3 * np.sin(2 * np.pi * 1209 * time),
        "hum": 0.2 * sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 8)),
        "clicks": clicks,
        "one sample": np.full(1, 0.1),
    }
    recognizer = Recognizer.load(bundle)
    for name, samples in silent.items():
        found = recognizer.predict(samples.astype(np.float32))
        assert (found.state, found.label, found.speech) == (
            "no speech",
            "no speech",
            pytest.approx(0, abs=0.1),
        ), name
        found = recognizer.stream(window=1.0).feed(samples.astype(np.float32))
        assert {each.state for each in found} <= {"no speech"}, name
    spoken = recognizer.predict(VOICE)
    assert spoken.state in recognizer.labels and spoken.speech > 0.3


def test_channels_that_cancel_and_one_of_two(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    recognizer = Recognizer.load(bundle)
    opposite = np.stack([VOICE, -VOICE], axis=1)
    assert recognizer.predict(opposite).scores == recognizer.predict(VOICE).scores
    assert "opposite phase" in caplog.text
    other = speech(2.0, pitch=240.0, seed=3)
    both = np.stack([VOICE, other], axis=1)
    assert recognizer.predict(both, channel="right").scores == recognizer.predict(other).scores
    with pytest.raises(AudioError, match="there is no channel 2: there are 2"):
        recognizer.predict(both, channel=2)


def test_a_call_gets_a_timeline_for_each_channel(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = np.zeros(4 * RATE, np.float32)
    one, other = np.r_[VOICE, quiet, VOICE], np.r_[quiet, VOICE, np.zeros(2 * RATE, np.float32)]
    (tmp_path / "call.wav").write_bytes(wav(np.stack([one, other], axis=1)))
    options = ["predict", str(bundle), str(tmp_path / "call.wav"), "--channel", "each"]
    assert main([*options, "--json"]) == 0
    left, right = map(json.loads, capsys.readouterr().out.splitlines())
    assert (left["channel"], right["channel"]) == (0, 1)
    assert sum(left["shares"].values()) == pytest.approx(1)
    assert all(segment["end"] < 2.5 or segment["start"] > 5.5 for segment in left["segments"])
    assert all(segment["start"] > 3.5 and segment["end"] < 6.5 for segment in right["segments"])
    assert main([*options, "--vtt"]) == 0
    assert capsys.readouterr().out.startswith("WEBVTT\n\n00:00:0")
    assert main([*options, "--rttm"]) == 0
    assert capsys.readouterr().out.startswith("SPEAKER call 1 ")


def test_names_in_another_unicode_form_are_found(tmp_path: Path) -> None:
    from mifuse.clips.manifest import read_manifest

    name = "Gespräch_Übung.wav"
    (tmp_path / unicodedata.normalize("NFD", name)).write_bytes(wav(VOICE))
    (tmp_path / "m.csv").write_text(
        f"path,label\n{unicodedata.normalize('NFC', name)},sad\n", encoding="utf-8"
    )
    assert read_manifest(tmp_path / "m.csv").clips[0].path.is_file()


@pytest.mark.parametrize("column", ["Split", "SPEAKER", "Labels", "emotion", "speaker_id"])
def test_columns_that_are_nearly_known_are_refused(tmp_path: Path, column: str) -> None:
    from mifuse.clips.manifest import read_manifest
    from mifuse.errors import ManifestError

    (tmp_path / "a.wav").write_bytes(wav(VOICE))
    (tmp_path / "m.csv").write_text(f"path,{column}\na.wav,adapt\n")
    with pytest.raises(ManifestError, match=f"column '{column}': did you mean "):
        read_manifest(tmp_path / "m.csv")


def test_weekdays_are_no_emotions_and_partitions_no_classes(tmp_path: Path) -> None:
    from mifuse.clips.folders import scan

    for day in ("mo", "di", "sa", "so"):
        (tmp_path / "week" / day).mkdir(parents=True)
        (tmp_path / "week" / day / "call.wav").write_bytes(wav(VOICE))
    assert (scan(tmp_path / "week").corpus, len(scan(tmp_path / "week").clips)) == ("flat", 4)
    for emotion in ("Angry", "Sad", "Surprise"):
        for split in ("train", "test"):
            folder = tmp_path / "own" / "anna" / emotion / split
            folder.mkdir(parents=True)
            (folder / f"{split}.wav").write_bytes(wav(VOICE))
    found = scan(tmp_path / "own", speaker_from=r"^(\w+)/")
    assert {clip.speaker for clip in found.clips} == {"anna"}
    assert dict(found.left_out) == {"surprise": 2}


def test_every_file_that_is_no_row_is_counted(tmp_path: Path) -> None:
    from mifuse.clips.folders import scan

    (tmp_path / "a.wav").write_bytes(wav(VOICE))
    (tmp_path / "._a.wav").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "b.wav").write_bytes(wav(VOICE))
    for suffix in ("m4a", "webm"):
        (tmp_path / f"b.{suffix}").write_bytes(bytes(range(100)))
    found = scan(tmp_path)
    assert dict(found.left_out) == {".m4a": 1, ".webm": 1, "hidden or deleted (._, .Trashes, __MACOSX)": 2}
    assert found.mostly_lost
