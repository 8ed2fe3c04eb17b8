"""Pitch and voice quality from the front end's spectra, and the student's second head on them."""

from __future__ import annotations

import wave

import numpy as np
import pytest
import torch
from torch import Tensor

from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip
from mifuse.errors import MifuseError
from mifuse.exporting.compress import narrowed
from mifuse.fusion.prosody import fit_prosody
from mifuse.models.features import Features
from mifuse.models.frontend import HOP, LOW_BINS, MEL_RANGE, N_MELS, LogMel
from mifuse.models.prosody import MEASURES, Prosody
from mifuse.models.student import Student, same_shapes
from mifuse.models.training import predict
from mifuse_runtime.frontend import MelPower
from mifuse_runtime.settings import FrontEnd

RATE = 16_000


def voice(hertz: float, glide: float = 0.0, seconds: float = 1.0) -> Tensor:
    """Harmonics of a pitch that rises by `glide` semitones a second, in syllables, (n,)."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(hertz * 2 ** (glide * t / 12)) / RATE
    sound = sum(np.sin(k * phase) / k for k in range(1, 15)) * (0.2 + np.sin(np.pi * 3 * t) ** 2)
    return torch.from_numpy(0.1 * sound).float()


def measures(samples: Tensor) -> dict[str, float]:
    """In the units of `MEASURES`."""
    found = Prosody()(LogMel().power(samples[None], low=True))[0]
    return {name: scale * float(v) for v, (name, (*_, scale)) in zip(found, MEASURES.items(), strict=True)}


@pytest.mark.parametrize("hertz", [90.0, 130.0, 210.0, 330.0])
def test_the_pitch_of_a_voice_is_found(hertz: float) -> None:
    found = measures(voice(hertz))
    assert found["f0"] == pytest.approx(12 * np.log2(hertz / 65), abs=0.4)
    assert found["voiced"] > 0.9 and found["harmonicity"] > 5


def test_a_rising_pitch_has_a_slope_and_noise_has_no_pitch() -> None:
    up, down = measures(voice(150, 6.0)), measures(voice(210, -6.0))
    assert up["f0_slope"] > 2 and down["f0_slope"] < -2
    assert up["f0_spread"] > 2 * measures(voice(150))["f0_spread"]
    noise = measures(0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0)))
    assert noise["voiced"] < 0.2 < 5 < up["harmonicity"] - noise["harmonicity"]


def test_level_and_silence_behind_a_clip_make_no_difference() -> None:
    samples = voice(140, 3.0)
    found = measures(samples)
    for other in (0.01 * samples, torch.nn.functional.pad(samples, (0, 7000))):
        assert measures(other) == pytest.approx(found, rel=1e-3, abs=1e-3)
    assert all(np.isfinite(list(measures(torch.zeros(RATE)).values())))


def test_the_devices_front_end_gives_the_same_bins() -> None:
    samples = voice(120, 2.0, 0.7)
    front = MelPower(FrontEnd(HOP, N_MELS, *MEL_RANGE, folded=True, lowest=LOW_BINS), RATE)
    expected = LogMel().power(samples[None], low=True)[0].numpy()
    found = front.clip(samples.numpy())
    assert found.shape == expected.shape == (1 + -(-samples.numel() // HOP), N_MELS + LOW_BINS)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7 * expected.max())


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Clip], AudioCache]:
    """Six speakers of other pitches; the "angry" clips of each lie four semitones above his others."""
    folder = tmp_path_factory.mktemp("voices")
    clips = []
    for speaker, hertz in enumerate((95, 115, 140, 170, 200, 240)):
        for take in range(16):
            label, high = ("angry", 4.0) if take % 2 else ("sad", 0.0)
            sound = voice(hertz * 2 ** ((high + 0.05 * take) / 12), 0.0, 0.5).numpy()
            with wave.open(str(path := folder / f"{speaker}-{take}.wav"), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", ""))
                file.writeframes((32767 * sound).astype("<i2").tobytes())
            clips.append(Clip(path=path, name=path.name, label=label, speaker=str(speaker)))
    return clips, AudioCache(folder / "cache")


def fitted(
    archive: tuple[list[Clip], AudioCache], rows: np.ndarray | None = None
) -> tuple[Student, Features]:
    clips, cache = archive
    torch.manual_seed(0)
    student, features = Student(("angry", "sad"), "w1", prosody=True).eval(), Features.of(clips, cache)
    with torch.no_grad():
        student.head.weight.zero_(), student.head.bias.zero_()
    labels = np.eye(2)[[("angry", "sad").index(str(clip.label)) for clip in clips]]
    fit_prosody(student, features, labels, balance=1.0, rows=rows)
    return student, features


def test_the_head_knows_an_emotion_within_a_speaker_whom_it_never_had(
    archive: tuple[list[Clip], AudioCache],
) -> None:
    student, features = fitted(archive, rows=np.arange(64))  # of four speakers
    angry = np.array([clip.label == "angry" for clip in archive[0]])
    right = ((predict(student, features)[:, 0] > 0.5) == angry)[64:].mean()
    assert right > 0.75  # other measures change with the pitch, too


def test_a_device_answers_as_the_student(archive: tuple[list[Clip], AudioCache]) -> None:
    student, features = fitted(archive)
    clips, cache = archive
    samples = torch.from_numpy(np.array(cache.samples(clips[5]), dtype=np.float32))[None]
    with torch.inference_mode():
        whole = student(samples)
        torch.testing.assert_close(student.standalone().eval()(samples), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole[0], predict(student, features.anonymous())[5], atol=1e-3)  # float16
    assert student.speaker_head().shape == (2, student.head.in_features + len(MEASURES) + 1)


def test_a_student_takes_the_network_of_one_without_prosody_and_keeps_its_own(
    archive: tuple[list[Clip], AudioCache],
) -> None:
    student, _ = fitted(archive)
    plain = Student(("angry", "sad"), "w1")
    assert same_shapes(plain, student) and same_shapes(student, plain)
    plain.begin_as(student)
    assert torch.equal(plain.blocks[0].conv.weight, student.blocks[0].conv.weight)
    again = Student(("angry", "sad"), "w1", prosody=True)
    again.begin_as(student)
    assert again.prosody is not None and student.prosody is not None
    assert torch.equal(again.prosody.weight, student.prosody.weight)
    again.begin_as(Student(("angry", "sad"), "w1"))
    assert torch.equal(again.prosody.weight, student.prosody.weight)
    assert narrowed(student, 1).prosody is not None


def test_features_without_recordings_have_no_prosody() -> None:
    bare = Features(np.zeros((4, N_MELS), np.float16), np.array([0, 4]))
    with pytest.raises(MifuseError, match="prosody is measured in recordings"):
        predict(Student(prosody=True), bare)
