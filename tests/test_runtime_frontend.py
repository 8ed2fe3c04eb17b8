"""The device's front end: the student's own mel power, each frame of a stream made once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mifuse_runtime.frontend import CHUNK, Frames, MelPower, filters
from mifuse_runtime.settings import FrontEnd
from tests.bundles import RATE, speech

FRONT = MelPower(FrontEnd(folded=True), RATE)
NOISE = np.random.default_rng(0).standard_normal(30_000).astype(np.float32)


def reference(samples: np.ndarray, settings: FrontEnd) -> np.ndarray:
    """Mel power frame by frame, in float64 and by a DFT that is written out."""
    hop = settings.hop
    size = 2 * hop
    padded = np.concatenate([np.zeros(hop), samples, np.zeros(hop + -samples.size % hop)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    dft = np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(hop + 1)) / size)
    dft = dft[:, :: 1 + settings.folded]
    frames = [padded[at : at + size] * window / window.sum() for at in range(0, padded.size - hop, hop)]
    power: np.ndarray = np.abs(np.array(frames) @ dft) ** 2 @ filters(settings, RATE).astype(np.float64)
    return power


@pytest.mark.parametrize("count", [1, 255, 256, 257, 512, 5000, 256 * CHUNK + 1])
@pytest.mark.parametrize(
    "settings", [FrontEnd(), FrontEnd(hop=100, mels=20, low=0.0, high=4000.0, folded=True)]
)
def test_mel_power_of_a_clip(count: int, settings: FrontEnd) -> None:
    found, wanted = MelPower(settings, RATE).clip(NOISE[:count]), reference(NOISE[:count], settings)
    assert found.dtype == np.float32
    assert found.shape == wanted.shape == (-(-count // settings.hop) + 1, settings.mels)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6 * wanted.max())


def test_it_is_the_students() -> None:
    torch = pytest.importorskip("torch")
    from mifuse.models.frontend import HOP, MEL_RANGE, N_MELS, LogMel, mel_filters

    settings = FrontEnd(HOP, N_MELS, *MEL_RANGE, folded=True)
    np.testing.assert_allclose(filters(settings, RATE), mel_filters(), rtol=1e-5, atol=1e-6)
    samples = speech(2.0)
    wanted = LogMel().power(torch.from_numpy(samples)[None])[0].numpy()
    found = MelPower(settings, RATE).clip(samples)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6 * wanted.max())


@given(
    windows=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3000)), min_size=2, max_size=9),
    shortest=st.integers(1, 4000),
)
def test_windows_of_a_stream_are_clips(windows: list[tuple[int, int]], shortest: int) -> None:
    frames, first, end = Frames(FRONT), 0, 0
    for hops, longer in windows:  # each begins and ends no earlier than the one before
        first, end = first + hops, max(end + longer, 256 * (first + hops) + shortest)
        samples = NOISE[256 * first : end]
        np.testing.assert_allclose(frames.window(samples, first), FRONT.clip(samples), rtol=1e-5)
    frames.reset()
    np.testing.assert_allclose(frames.window(NOISE[:700], 0), FRONT.clip(NOISE[:700]), rtol=1e-5)


def test_frames_are_made_once() -> None:
    made: list[int] = []

    class Counting(MelPower):
        def of_hops(self, hops: np.ndarray) -> np.ndarray:
            made.append(len(hops) - 1)
            return super().of_hops(hops)

    frames = Frames(Counting(FrontEnd(), RATE))
    for first in range(0, 60, 10):
        frames.window(NOISE[256 * first : 256 * (first + 50)], first)
    assert made == [51] + [13] * 5  # ten new ones, those at the ends, and one that is thrown away


def test_silence_is_zero() -> None:
    assert not MelPower(replace(FrontEnd(), mels=8), RATE).clip(np.zeros(1000, np.float32)).any()


def test_no_product_is_large_enough_for_threads(monkeypatch):
    products = []

    def multiply(a, b, out):
        products.append(len(a) * b.size)
        out[:] = a @ b

    monkeypatch.setattr(np, "matmul", multiply)
    FRONT.clip(NOISE)
    assert max(products) <= 1 << 18
