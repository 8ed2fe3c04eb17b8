"""Synthetic speech: the same from the same seed, sound, and different by emotion and by domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mifuse.clips.audio import read_audio
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest
from mifuse.demo.stand_in import MEASURES, measure
from mifuse.demo.synth import DOMAINS, make_domain, make_speaker, synthesise
from mifuse_runtime import MifuseError


def _measures(label: str, domain: str = "studio", clips: int = 12) -> np.ndarray:
    rng = np.random.default_rng(5)
    speakers = [make_speaker(DOMAINS[domain], rng) for _ in range(4)]
    made = [synthesise(label, speakers[i % 4], DOMAINS[domain], rng, seconds=1.0) for i in range(clips)]
    return np.stack([measure(clip.astype(np.float32)) for clip in made])


def test_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        make_domain(tmp_path / folder, "phone", speakers=2, clips_per_speaker=2, seed=3, seconds=0.5)
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(names) == 5
    assert all(
        (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names
    )
    make_domain(tmp_path / "two", "phone", speakers=2, clips_per_speaker=2, seed=4, seconds=0.5)
    first = names[0]
    assert (tmp_path / "one" / first).read_bytes() != (tmp_path / "two" / first).read_bytes()


def test_manifest_has_labels_speakers_and_disjoint_splits(tmp_path: Path) -> None:
    path = make_domain(tmp_path, "studio", speakers=3, clips_per_speaker=8, test_speakers=1, seconds=0.3)
    manifest = read_manifest(path)
    assert {clip.label for clip in manifest.clips} == set(LABELS)
    adapt, test = ({clip.speaker for clip in manifest.select(split).clips} for split in ("adapt", "test"))
    assert len(adapt) == 2 and len(test) == 1 and not adapt & test
    samples = read_audio(manifest.clips[0].path)
    assert len(samples) == 4800 and samples.std() > 1e-3


def test_no_split_column_without_test_speakers(tmp_path: Path) -> None:
    path = make_domain(tmp_path, "studio", speakers=1, clips_per_speaker=1, seconds=0.3)
    assert read_manifest(path).clips[0].split is None


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("label", LABELS)
def test_samples_are_finite_and_in_range(domain: str, label: str) -> None:
    rng = np.random.default_rng(0)
    for seconds in (0.3, 1.03):
        speaker = make_speaker(DOMAINS[domain], rng)
        clip = synthesise(label, speaker, DOMAINS[domain], rng, seconds)
        assert len(clip) == int(seconds * 16_000)
        assert np.isfinite(clip).all() and np.abs(clip).max() <= 1.0 and clip.std() > 1e-3


def test_emotions_differ_in_what_can_be_measured() -> None:
    mean = {label: dict(zip(MEASURES, _measures(label).mean(axis=0), strict=True)) for label in LABELS}
    assert mean["happy"]["f0_median"] > mean["sad"]["f0_median"] + 1  # semitones
    assert mean["angry"]["energy"] > mean["sad"]["energy"] + 3  # dB
    assert mean["happy"]["f0_range"] > mean["neutral"]["f0_range"]
    assert mean["angry"]["tilt"] > mean["sad"]["tilt"]


def test_emotions_overlap() -> None:
    happy, sad = (_measures(label)[:, MEASURES.index("f0_median")] for label in ("happy", "sad"))
    assert happy.min() < sad.max()


def test_the_phone_passes_less(tmp_path: Path) -> None:
    def share_above_5_khz(domain: str) -> float:
        rng = np.random.default_rng(1)
        clip = synthesise("neutral", make_speaker(DOMAINS[domain], rng), DOMAINS[domain], rng)
        power = np.abs(np.fft.rfft(clip)) ** 2
        return float(power[len(power) * 5 // 8 :].sum() / power.sum())

    assert share_above_5_khz("phone") < 0.3 * share_above_5_khz("studio")


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MifuseError, match="unknown synthetic domain 'moon': use one of studio, phone"):
        make_domain(tmp_path, "moon", speakers=1, clips_per_speaker=1)
    with pytest.raises(MifuseError, match="2 test speakers of 2"):
        make_domain(tmp_path, "phone", speakers=2, clips_per_speaker=1, test_speakers=2)
    assert not list(tmp_path.iterdir())
