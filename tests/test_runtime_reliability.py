"""What must hold whatever comes: any samples, any bundle.json, many threads, hours of audio."""

from __future__ import annotations

import json
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mifuse_runtime import AudioError, BundleError, Prediction, Recognizer, Stream
from mifuse_runtime import bundle as bundles
from tests.bundles import RATE, make_bundle, speech


@pytest.fixture(scope="module", params=["whole", "body"])
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    split = request.param == "body"
    return make_bundle(tmp_path_factory.mktemp("reliability") / "bundle", split=split)


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> Recognizer:
    return Recognizer.load(folder)


def plausible(found: Prediction, recognizer: Recognizer) -> None:
    values = list(found.scores.values())
    assert np.isfinite([*values, found.confidence, found.speech]).all()
    assert sum(values) == pytest.approx(1)
    assert found.state in {*recognizer.labels, "not sure", "no speech"}
    assert 0 <= found.start < found.end


anything = st.one_of(
    arrays.arrays(
        st.sampled_from(("f4", "f8", "f2", ">f4", "i2", ">i2", "i4", "u1", "?", "c8", "U1")),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=70),
    ),
    st.lists(st.floats() | st.integers() | st.none() | st.text(max_size=2), max_size=5),
    st.none() | st.text(max_size=3) | st.binary(max_size=9),
)


@given(chunks=st.lists(anything, max_size=6), rate=st.sampled_from((1000, 8000, RATE, 44_100, 48_000)))
@settings(max_examples=80)
def test_feed_takes_or_refuses_anything(recognizer: Recognizer, chunks: list[Any], rate: int) -> None:
    stream = recognizer.stream(rate, window=0.1, hop=0.05)
    samples = speech(0.15, rate)
    found = [prediction for chunk in chunks for prediction in fed(stream, chunk)]
    last = stream.feed(samples) + stream.close()
    assert last
    for prediction in found + last:
        plausible(prediction, recognizer)


def fed(stream: Stream, chunk: Any) -> list[Prediction]:
    try:
        return stream.feed(chunk)
    except AudioError as error:
        assert "\n" not in str(error)
        return []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
@settings(max_examples=80)
def test_bundle_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    content: Any = json.loads((folder / "bundle.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        place = content
        key = data.draw(st.sampled_from(sorted(place)))
        while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
            key = data.draw(st.sampled_from(sorted(place)))
        if data.draw(st.booleans()):
            del place[key]
            break
        place[key] = data.draw(json_values)
    try:
        bundle = bundles.Bundle.from_json(json.dumps(content))
    except BundleError as error:
        assert "\n" not in str(error)
    else:
        assert bundles.Bundle.from_json(bundle.to_json()) == bundle


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        bundles.Bundle.from_json(content)


def test_files_that_are_too_large_or_no_files(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    (folder / "model.onnx").unlink()
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(bundles.MAX_FILE + 1)  # takes no room on the disk, as in a zip bomb
    with pytest.raises(BundleError, match="is larger than"):
        bundles.load(folder)
    (folder / "model.onnx").unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "model.onnx")  # reading it would wait for ever
        with pytest.raises(BundleError, match="is missing"):
            bundles.load(folder)


def states(recognizer: Recognizer, number: int) -> list[tuple[object, ...]]:
    rate = (8000, RATE, 44_100, 48_000)[number % 4]
    samples = speech(1.2, rate, pitch=100 + 3 * number, seed=number)
    with recognizer.stream(rate, window=0.3, hop=0.1) as stream:
        cuts = np.sort(np.random.default_rng(number).integers(0, samples.size, 8))
        found = [p for chunk in np.split(samples, cuts) for p in stream.feed(chunk)] + stream.close()
    return [
        (p.label, p.state, p.end, round(p.speech, 9), *np.round(list(p.scores.values()), 5)) for p in found
    ]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "body"])
def test_64_streams_in_8_threads_are_as_one_after_the_other(tmp_path: Path, engine: str) -> None:
    split = engine == "body"
    engine = "onnxruntime" if split else engine
    pytest.importorskip(engine)
    folder = make_bundle(tmp_path, openvino=engine == "openvino", split=split)
    recognizer = Recognizer.load(folder, engine)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda number: states(recognizer, number), range(64)))
    assert together == [states(recognizer, number) for number in range(64)]
    assert all(together)


def test_memory_stays_flat(recognizer: Recognizer) -> None:
    """Four minutes; `python -m benchmarks.streaming` measures an hour and the whole process."""
    rng = np.random.default_rng(0)
    minute = (speech(60) * 32767).astype(np.int16)
    stream = recognizer.stream(window=3.0, hop=1.0)
    held = []
    tracemalloc.start()
    try:
        for _ in range(4):
            at = 0
            while at < minute.size:
                size = int(rng.integers(1, 40_000))
                stream.feed(minute[at : at + size])
                at += size
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(held[1:]) - min(held[1:]) < 50_000  # bytes
