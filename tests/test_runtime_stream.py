"""The stream: the same predictions however the audio is cut."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mifuse_runtime import NO_SPEECH, AudioError, Prediction, Recognizer
from mifuse_runtime.graph import Engine
from mifuse_runtime.settings import Settings
from tests.bundles import RATE, expected, make_bundle, speech, tone


@pytest.fixture(scope="module", params=["whole", "body"])
def recognizer(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Recognizer:
    return Recognizer.load(make_bundle(tmp_path_factory.mktemp("stream"), split=request.param == "body"))


def same(left: list[Prediction], right: list[Prediction]) -> None:
    def words(found: list[Prediction]) -> list[object]:
        return [(p.label, p.state, p.start, p.end, p.speech) for p in found]

    assert words(left) == words(right)
    for one, other in zip(left, right, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert list(one.scores.values()) == pytest.approx(list(other.scores.values()), abs=1e-5)


def test_windows_and_times(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognizer, "_whole", recognizer._body)  # the whole graph here is another model
    samples = np.concatenate([tone(2, 200), tone(2, 2000)])
    found = recognizer.stream(window=1.0, hop=0.5).feed(samples)
    assert [(p.start, p.end) for p in found] == [(0.5 * i, 0.5 * i + 1) for i in range(7)]
    for number, prediction in enumerate(found):
        grid = recognizer._front.hop if recognizer._front else 1  # where windows can begin
        window = samples[number * RATE // 2 // grid * grid : number * RATE // 2 + RATE]
        alone = list(recognizer.predict(window).scores.values())
        assert list(prediction.scores.values()) == pytest.approx(alone, abs=1e-5)
        if not recognizer._front:
            assert alone == pytest.approx(expected(window), abs=1e-5)


def test_default_window_is_the_bundles(recognizer: Recognizer) -> None:
    assert [(p.start, p.end) for p in recognizer.stream().feed(np.zeros(4 * RATE, np.int16))] == [
        (0, 3),
        (0.5, 3.5),
        (1, 4),
    ]


@given(
    cuts=st.lists(st.integers(0, 100_000), max_size=12),
    rate=st.integers(8000, 48_000) | st.sampled_from((16_000, 44_100, 48_000)),
    hop=st.sampled_from((0.05, 0.11, 0.4, 1.3)),
    channels=st.integers(0, 3),
    dtype=st.sampled_from((np.int16, np.float32, np.float64)),
)
@settings(max_examples=40, deadline=None)
def test_chunks_make_no_difference(
    recognizer: Recognizer, cuts: list[int], rate: int, hop: float, channels: int, dtype: type
) -> None:
    samples = speech(2.1, rate)
    if channels:  # 0: one-dimensional
        samples = np.stack([samples * (0.5 + 0.2 * channel) for channel in range(channels)], axis=1)
    samples = (samples * 32767).astype(dtype) if dtype is np.int16 else samples.astype(dtype)
    stream = recognizer.stream(rate, window=0.3, hop=hop)
    whole = stream.feed(samples) + stream.close()
    assert {NO_SPEECH} < {p.label for p in whole} or hop > 1
    stream.reset()
    pieces = [p for chunk in np.split(samples, sorted(cuts)) for p in stream.feed(chunk)]
    same(pieces + stream.close(), whole)


def test_one_sample_at_a_time(recognizer: Recognizer) -> None:
    samples = tone(0.15, rate=8000)
    stream = recognizer.stream(8000, window=0.1, hop=0.02)
    same(
        [p for sample in samples for p in stream.feed([sample])],
        recognizer.stream(8000, 0.1, 0.02).feed(samples),
    )


@pytest.mark.parametrize("hop", [0.5, 7.0])
def test_what_is_held_does_not_grow(recognizer: Recognizer, hop: float) -> None:
    stream = recognizer.stream(44_100, window=1.0, hop=hop)
    sizes = set()
    for _ in range(21):
        stream.feed(np.zeros(44_100, np.int16))
        sizes.add(len(stream._voice._counts) + stream._voice._rest.size + stream._resampler._rest.size)
    assert stream._buffer.size <= 2 * RATE + 255
    assert stream._frames is None or len(stream._frames._power) <= RATE // 256 + 3
    assert max(sizes) < 3000


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


def test_silence_noise_and_tones_are_given_no_emotion(tmp_path: Path) -> None:
    recognizer = Recognizer.load(make_bundle(tmp_path / "bundle", settings=Settings()))
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    for samples in (np.zeros(3 * RATE, np.float32), 1e-4 * tone(3), tone(3), noise):
        for found in recognizer.stream(window=1.0).feed(samples):
            assert (found.label, found.state, found.confidence) == (NO_SPEECH, NO_SPEECH, 0)
            assert set(found.scores.values()) == {0.25}
    assert {p.label for p in recognizer.stream(window=2.0).feed(speech(3))} <= set(recognizer.labels)


def test_frames_are_looked_at_once_and_by_a_vad_of_ones_own(recognizer: Recognizer) -> None:
    frames: list[np.ndarray] = []

    def vad(frame: np.ndarray) -> float:
        frames.append(frame.copy())
        return 0.9 if len(frames) > 31 else 0.1  # speech from 0.992 s on

    stream = recognizer.stream(48_000, window=1.0, hop=0.25, vad=vad)
    found = [p for chunk in np.split(np.zeros(96_000, np.int16), 50) for p in stream.feed(chunk)]
    assert {frame.size for frame in frames} == {512}
    assert len(frames) == 62  # of 2 s
    assert [p.speech for p in found] == pytest.approx([0, 8 / 31, 16 / 31, 23 / 30], abs=0.04)
    assert [p.label == NO_SPEECH for p in found] == [True, False, False, False]


def test_vad_may_do_what_it_likes_with_its_frames(recognizer: Recognizer) -> None:
    kept: list[np.ndarray] = []

    def vad(frame: np.ndarray) -> bool:
        kept.append(frame)
        frame += 1.0
        return True

    samples = speech(2.0)
    found = recognizer.stream(window=0.5, hop=0.1, vad=vad).feed(samples)
    same(found, recognizer.stream(window=0.5, hop=0.1, vad=lambda frame: True).feed(samples))
    np.testing.assert_allclose(np.concatenate(kept), samples[: 62 * 512] + np.float32(1))


def test_close_recognises_the_rest_once(recognizer: Recognizer) -> None:
    for rate in (RATE, 44_100):
        stream = recognizer.stream(rate, window=1.0, hop=0.5)
        assert [p.end for p in stream.feed(tone(1.2, rate=rate))] == [1.0]
        assert [(p.start, p.end) for p in stream.close()] == [(0.5, pytest.approx(1.2, abs=1e-3))]
        assert stream.close() == []
        with pytest.raises(AudioError, match="closed"):
            stream.feed(tone(0.1))
    stream = recognizer.stream(window=1.0, hop=0.5)
    stream.feed(tone(1.0))
    assert stream.close() == []  # nothing new
    stream.reset()
    stream.feed(tone(0.4))
    assert [(p.start, p.end) for p in stream.close()] == [(0, 0.4)]


def test_with_closes(recognizer: Recognizer) -> None:
    with recognizer.stream() as stream:
        stream.feed(tone(0.1))
    with pytest.raises(AudioError, match="closed"):
        stream.feed(tone(0.1))


def test_many_streams_in_one_call_are_as_each_alone(recognizer: Recognizer) -> None:
    windows, rates = (0.3, 0.3, 0.5, 0.4), (RATE, 8000, 44_100, RATE)
    streams = [recognizer.stream(r, w, 0.1) for r, w in zip(rates, windows, strict=True)]
    alone = [recognizer.stream(r, w, 0.1) for r, w in zip(rates, windows, strict=True)]
    rows: list[int] = []

    def counted(engine: Engine, samples: np.ndarray) -> np.ndarray:
        rows.append(len(samples))
        return ask(engine, samples)

    ask, recognizer._ask = recognizer._ask, counted  # type: ignore[method-assign]
    try:
        for part in range(5):
            chunks = [speech(0.35, rate, seed=part) for rate in rates]
            found = recognizer.feed_all(streams, chunks)
            for stream, chunk, predictions in zip(alone, chunks, found, strict=True):
                same(predictions, stream.feed(chunk))
    finally:
        del recognizer._ask
    assert max(rows) == 2  # windows of one length shared runs
    with pytest.raises(AudioError, match="stream 1: samples are int64"):
        recognizer.feed_all(streams[:2], [tone(1), np.zeros(3, np.int64)])
    with pytest.raises(ValueError, match="twice"):
        recognizer.feed_all([streams[0]] * 2, [tone(0.1)] * 2)
    with pytest.raises(ValueError, match="shorter"):
        recognizer.feed_all(streams, [tone(0.1)])


def test_a_channel_of_the_chunks(recognizer: Recognizer, caplog: pytest.LogCaptureFixture) -> None:
    left, right = speech(2.1), speech(2.1, pitch=210.0)
    both = np.stack([left, right], axis=1)
    chunks = np.array_split(both, 7)
    streams = [recognizer.stream(window=1.0, channel=channel) for channel in ("left", 1, "mix")]
    fed = [recognizer.feed_all(streams, [chunk] * 3) for chunk in chunks]
    for number, samples in enumerate((left, right, both.mean(axis=1, dtype=np.float32))):
        found = [p for part in fed for p in part[number]]
        same(found, recognizer.stream(window=1.0).feed(samples))
    for channel in (2, "right", "each", -1):
        with pytest.raises(AudioError, match=r"there is no channel|use mix, left, right or a number"):
            recognizer.stream(channel=channel).feed(both[:, : 1 + (channel == 2)])
    opposite = recognizer.stream(window=1.0)
    found = [p for chunk in chunks for p in opposite.feed(np.stack([chunk[:, 0], -chunk[:, 0]], axis=1))]
    same(found, recognizer.stream(window=1.0).feed(left))
    assert caplog.text.count("cancel each other") == 1
