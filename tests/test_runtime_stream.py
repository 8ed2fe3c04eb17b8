"""The stream: the same predictions however the audio is cut."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mifuse_runtime import AudioError, Prediction, Recognizer, Stream
from tests.bundles import RATE, expected, make_bundle, tone


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    return Recognizer.load(make_bundle(tmp_path_factory.mktemp("stream")))


def same(left: list[Prediction], right: list[Prediction]) -> None:
    assert [(p.label, p.start, p.end) for p in left] == [(p.label, p.start, p.end) for p in right]
    for one, other in zip(left, right, strict=True):
        assert list(one.scores.values()) == pytest.approx(list(other.scores.values()), abs=1e-5)


def test_windows_and_times(recognizer: Recognizer) -> None:
    samples = np.concatenate([tone(2, 200), tone(2, 2000)])
    found = recognizer.stream(window=1.0, hop=0.5).feed(samples)
    assert [(p.start, p.end) for p in found] == [(0.5 * i, 0.5 * i + 1) for i in range(7)]
    for number, prediction in enumerate(found):
        window = samples[number * RATE // 2 :][:RATE]
        assert list(prediction.scores.values()) == pytest.approx(expected(window), abs=1e-5)


def test_default_window_is_the_bundles(recognizer: Recognizer) -> None:
    assert [(p.start, p.end) for p in recognizer.stream().feed(np.zeros(4 * RATE, np.int16))] == [
        (0, 3),
        (0.5, 3.5),
        (1, 4),
    ]


@given(
    cuts=st.lists(st.integers(0, 20_000), max_size=12),
    rate=st.sampled_from((8000, 16_000, 22_050)),
    hop=st.sampled_from((0.05, 0.11, 0.4)),
    stereo=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_chunks_make_no_difference(
    recognizer: Recognizer, cuts: list[int], rate: int, hop: float, stereo: bool
) -> None:
    samples = (3000 * np.random.default_rng(0).standard_normal((20_000, 2))).astype(np.int16)
    samples = samples if stereo else samples[:, 0]
    stream = recognizer.stream(rate, window=0.2, hop=hop)
    whole = stream.feed(samples)
    assert whole
    stream.reset()
    same([p for chunk in np.split(samples, sorted(cuts)) for p in stream.feed(chunk)], whole)


def test_one_sample_at_a_time(recognizer: Recognizer) -> None:
    samples = tone(0.15, rate=8000)
    stream = recognizer.stream(8000, window=0.1, hop=0.02)
    same(
        [p for sample in samples for p in stream.feed([sample])],
        recognizer.stream(8000, 0.1, 0.02).feed(samples),
    )


def held(stream: Stream) -> int:
    return stream._heard.size + stream._resampler._rest.size


@pytest.mark.parametrize("hop", [0.5, 7.0])
def test_memory_is_one_window(recognizer: Recognizer, hop: float) -> None:
    stream = recognizer.stream(44_100, window=1.0, hop=hop)
    for _ in range(20):
        stream.feed(np.zeros(44_100, np.int16))
        assert held(stream) <= 1.1 * RATE + 2000


def test_broken_samples_are_silence_and_said_once(
    recognizer: Recognizer, caplog: pytest.LogCaptureFixture
) -> None:
    stream = recognizer.stream(window=0.5, hop=0.5)
    broken, silent = tone(1), tone(1)
    broken[100:200], silent[100:200] = np.nan, 0
    broken[300], silent[300] = np.inf, 0
    with caplog.at_level(logging.WARNING):
        found = stream.feed(broken) + stream.feed(broken)
    same(found, recognizer.stream(window=0.5, hop=0.5).feed(np.concatenate([silent, silent])))
    assert len(caplog.records) == 1


def test_refused_chunk_leaves_the_stream_alone(recognizer: Recognizer) -> None:
    stream = recognizer.stream(window=0.5, hop=0.5)
    assert stream.feed(tone(0.3)) == []
    for chunk in (np.zeros(3, np.int64), np.full(3, 1000.0), np.zeros((2, 900), np.float32)):
        with pytest.raises(AudioError):
            stream.feed(chunk)
    assert [p.end for p in stream.feed(tone(0.2))] == [0.5]


@pytest.mark.parametrize(
    "options", [{"window": 0.0}, {"window": 1e9}, {"hop": 0}, {"hop": -1}, {"hop": float("nan")}]
)
def test_wrong_options(recognizer: Recognizer, options: dict[str, float]) -> None:
    with pytest.raises(AudioError, match=r"(window|hop) is"):
        recognizer.stream(**options)
