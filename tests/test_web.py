"""The JavaScript module beside the Python runtime: the same bundle and audio give the same predictions."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import mifuse_runtime
from mifuse_runtime import Recognizer, engines, read_audio
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.resample import resample
from mifuse_runtime.settings import Settings
from tests.browser import WEB, Ask, ask_graph, needs_web
from tests.bundles import LABELS, make_bundle, speech, tone

ROOT = Path(__file__).resolve().parent.parent
CLOSE = 1e-3  # of probabilities, as promised; measured 1e-7

pytestmark = needs_web


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> Path:
    folder = make_bundle(tmp_path_factory.mktemp("web") / "a bundle", settings=Settings(abstain=0.27))
    ask("load", bundle=folder)
    return folder


@pytest.fixture(scope="module")
def python(bundle: Path) -> Recognizer:
    return Recognizer.load(bundle)


def written(samples: np.ndarray, folder: Path) -> dict[str, Any]:
    """A request's part about samples (n,) or (n, channels)."""
    kind = {"int16": "Int16Array", "float32": "Float32Array", "float64": "Float64Array"}[samples.dtype.name]
    samples.tofile(folder / "samples")
    channels = samples.shape[1] if samples.ndim == 2 else 0
    return {"samples": folder / "samples", "type": kind, "channels": channels}


def same(found: dict[str, Any], expected: mifuse_runtime.Prediction, close: float = CLOSE) -> None:
    wanted = asdict(expected)
    for key in ("label", "state", "start", "end", "speech"):
        assert found[key] == pytest.approx(wanted[key]), key
    assert list(found["scores"]) == list(wanted["scores"])
    assert found["scores"] == pytest.approx(wanted["scores"], abs=close)
    assert found["confidence"] == pytest.approx(wanted["confidence"], abs=close)
    assert found["dimensions"] == pytest.approx(wanted["dimensions"], abs=10 * close)


def test_version_and_defaults_are_the_runtimes(ask: Ask, bundle: Path) -> None:
    package = json.loads((WEB / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == mifuse_runtime.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", package["dependencies"]["onnxruntime-web"]), "not pinned"
    assert list(package["dependencies"]) == ["onnxruntime-web"]
    assert {name: value[0] for name, value in ask("settings").items()} == asdict(Settings())
    content = json.loads((bundle / "bundle.json").read_text())
    for name, (_, low, high) in ask("settings").items():
        for value in (low, high):
            Bundle.from_json(json.dumps(content | {"stream": {name: value}}))
        for value in (low - 1, high + 1):
            with pytest.raises(mifuse_runtime.BundleError, match=rf"stream\.{name} is"):
                Bundle.from_json(json.dumps(content | {"stream": {name: value}}))


def test_a_clip_is_what_it_is_in_python(ask: Ask, bundle: Path, python: Recognizer, tmp_path: Path) -> None:
    stereo = np.stack([speech(1.3), tone(1.3)], axis=1)
    faint, quiet = (
        tone(0.4) * np.float32(10 ** (-db / 20)) for db in (43, 37)
    )  # below what is cut, and above
    ends = np.concatenate([faint, quiet, faint, tone(0.5), quiet, faint])
    for samples in (
        speech(2.0),
        (speech(0.7) * 32767).astype(np.int16),
        stereo,
        tone(0.02).astype(float),
        ends,
    ):
        same(ask("predict", bundle=bundle, **written(samples, tmp_path)), python.predict(samples))


@pytest.mark.parametrize("labels", [LABELS, ()])
def test_dimensions_are_what_they_are_in_python(ask: Ask, tmp_path: Path, labels: tuple[str, ...]) -> None:
    ranges = {"arousal": (1.0, 7.0), "valence": (-1.0, 1.0)}
    folder = make_bundle(tmp_path / "both", labels, dimensions=ranges)
    python = Recognizer.load(folder)
    ask("load", bundle=folder)
    for samples in (tone(1.0), tone(1.0, level=0.01), np.zeros(16_000, np.float32)):
        same(
            ask("predict", bundle=folder, rate=16_000, **written(samples, tmp_path)), python.predict(samples)
        )
    assert python.predict(tone(1.0)).dimensions.keys() == ranges.keys()
    wanted = python.stream().feed(tone(4.0))
    found = ask("stream", bundle=folder, rate=16_000, hop=0.5, cuts=[9000], **written(tone(4.0), tmp_path))
    for one, other in zip(found, wanted, strict=False):
        same(one, other)
    content = json.loads((folder / "bundle.json").read_text())
    for ends in ([7, 1], [1], "1:7", [1, None]):
        (folder / "bundle.json").write_text(json.dumps(content | {"dimensions": {"arousal": ends}}))
        with pytest.raises(RuntimeError, match="arousal"):
            ask("load", bundle=folder)
        with pytest.raises(mifuse_runtime.BundleError, match="arousal"):
            Recognizer.load(folder)


@given(
    rate=st.integers(8000, 48_000) | st.sampled_from((1000, 11_025, 16_000, 44_100, 48_000, 192_000)),
    target=st.sampled_from((16_000, 8000, 44_100)),
    size=st.integers(0, 3000),
)
@settings(max_examples=25)
def test_resampling_is_that_of_python(
    ask: Ask, tmp_path_factory: pytest.TempPathFactory, rate: int, target: int, size: int
) -> None:
    samples = np.random.default_rng(size).uniform(-1, 1, size).astype(np.float32)
    found = ask("resample", rate=rate, target=target, **written(samples, tmp_path_factory.mktemp("resample")))
    assert found == pytest.approx(resample(samples, rate, target), abs=2e-6)


@given(
    cuts=st.lists(st.integers(0, 100_000), max_size=6),
    rate=st.sampled_from((8000, 16_000, 22_050, 48_000)),
    hop=st.sampled_from((0.11, 0.4, 1.3)),
    channels=st.integers(0, 2),
    dtype=st.sampled_from((np.int16, np.float32, np.float64)),
    seed=st.integers(0, 5),
)
@settings(max_examples=15)
def test_streams_decide_as_in_python_however_the_audio_is_cut(
    ask: Ask,
    bundle: Path,
    python: Recognizer,
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    rate: int,
    hop: float,
    channels: int,
    dtype: type,
    seed: int,
) -> None:
    samples = np.concatenate([speech(1.6, rate, seed=seed), np.zeros(rate, np.float32), speech(0.5, rate)])
    if channels:
        samples = np.stack([samples * (1 - 0.3 * i) for i in range(channels)], axis=1)
    samples = (samples * 32767).astype(np.int16) if dtype is np.int16 else samples.astype(dtype)
    cuts = sorted(min(cut, len(samples)) for cut in cuts)
    request = written(samples, tmp_path_factory.mktemp("stream"))
    found = ask("stream", bundle=bundle, rate=rate, window=0.8, hop=hop, cuts=cuts, **request)
    stream = python.stream(rate, 0.8, hop)
    expected = [p for a, b in pairwise([0, *cuts, len(samples)]) for p in stream.feed(samples[a:b])]
    expected += stream.close()
    assert {p.state for p in expected} & set(python.labels)
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_a_stream_of_one_channel(ask: Ask, bundle: Path, python: Recognizer, tmp_path: Path) -> None:
    both = np.stack([speech(1.6), speech(1.6, pitch=210.0)], axis=1)
    request = {"bundle": bundle, "window": 0.8, "cuts": [9000], **written(both, tmp_path)}
    for channel in ("left", 1):
        stream = python.stream(window=0.8, channel=channel)
        expected = stream.feed(both[:9000]) + stream.feed(both[9000:]) + stream.close()
        for one, other in zip(ask("stream", **request, channel=channel), expected, strict=True):
            same(one, other)
    for channel in (2, "each", -1):
        with pytest.raises(RuntimeError, match=r"there is no channel 2|use mix, left, right or a number"):
            ask("stream", **request, channel=channel)


def test_stream_starts_again_and_takes_a_vad(
    ask: Ask, bundle: Path, python: Recognizer, tmp_path: Path
) -> None:
    samples = speech(3.6)
    request = {"bundle": bundle, "cuts": [100, 40_000], "again": True, "vad": True}
    found = ask("stream", **request, **written(samples, tmp_path))
    stream = python.stream(vad=lambda frame: frame[0] > 0)
    expected = stream.feed(samples)
    stream.reset()
    expected += stream.feed(samples) + stream.close()
    assert [p.start for p in expected] == [0, 0.5, 0, 0.5, 1]
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_one_recogniser_answers_many_at_once(
    ask: Ask, bundle: Path, python: Recognizer, tmp_path: Path
) -> None:
    samples = speech(1.0)
    for found in ask("together", bundle=bundle, times=8, **written(samples, tmp_path)):
        same(found, python.predict(samples))


def test_audio_files(ask: Ask, tmp_path: Path) -> None:
    stereo = np.stack([speech(0.4, 22_050), tone(0.4, rate=22_050)], axis=1)
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        for form in ("WAV", "WAVEX"):
            soundfile.write(tmp_path / "a.wav", stereo, 22_050, subtype, format=form)
            assert ask("read", file=tmp_path / "a.wav") == pytest.approx(
                read_audio(tmp_path / "a.wav"), abs=2e-6
            )
    whole = (tmp_path / "a.wav").read_bytes()
    soundfile.write(tmp_path / "a.flac", stereo, 22_050)
    cases = {
        b"": "empty",
        whole[: len(whole) * 3 // 4]: "cut short",
        whole[:30]: "cut short",
        b"text": "not a file that can be read here",
    }
    for content, reason in cases.items():
        (tmp_path / "b.wav").write_bytes(content)
        with pytest.raises(RuntimeError, match=f"^AudioError: .*{reason}"):
            ask("read", file=tmp_path / "b.wav")
    with pytest.raises(RuntimeError, match="convert it to WAV"):
        ask("read", file=tmp_path / "a.flac")


def test_samples_that_cannot_be_used_are_refused_in_one_line(ask: Ask, bundle: Path, tmp_path: Path) -> None:
    cases: list[tuple[np.ndarray, dict[str, Any], str]] = [
        (np.zeros(0, np.float32), {}, "no samples"),
        (np.full(9, np.nan, np.float32), {}, "NaN or infinity"),
        (np.full(9, 99, np.float32), {}, "divide them"),
        (np.zeros(9, np.float32), {"rate": 999}, "sample rate is 999"),
        (np.zeros(9, np.float32), {"rate": 16_000.5}, "sample rate is 16000.5"),
    ]
    for samples, options, reason in cases:
        with pytest.raises(RuntimeError, match=f"^AudioError: [^\n]*{reason}[^\n]*$"):
            ask("predict", bundle=bundle, **options, **written(samples, tmp_path))
    for option, reason in ({"window": 0.01}, "window is 0.01"), ({"hop": 0}, "hop is 0"):
        with pytest.raises(RuntimeError, match=f"^AudioError: {reason}"):
            ask("stream", bundle=bundle, cuts=[], **option, **written(np.zeros(9, np.float32), tmp_path))
    spoiled = ask("spoiled", bundle=bundle)
    assert [error.split(":")[0] for error in spoiled["errors"]] == ["AudioError"] * 6
    assert "closed" in spoiled["errors"][-1]
    assert [p["label"] for p in spoiled["found"]] == ["no speech"] * 2


def spoil(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(content | changes))


def test_bundles_of_later_makers_load(ask: Ask, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, precisions=("fp32", "int8"))
    spoil(folder, parts={"front": "front.onnx"}, stream={"abstain": 0.5, "new": 1})
    assert ask("load", bundle=folder)["precision"] == "int8"
    assert ask("load", bundle=folder, precision="fp32")["precision"] == "fp32"
    with pytest.raises(RuntimeError, match="no fp16 model for onnxruntime: it has fp32, int8"):
        ask("load", bundle=folder, precision="fp16")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 2}, "schema 2, this runtime reads 1: upgrade"),
        ({"schema": "1"}, "schema"),
        ({"labels": ["sad"]}, "two or more"),
        ({"labels": ["sad", "sad"]}, "two or more"),
        ({"labels": ["sad", "no speech"]}, "the runtime's own"),
        ({"labels": ["happy", "sad"]}, "not probabilities"),
        ({"sample_rate": 7}, "sample_rate is 7"),
        ({"window": None}, "window is null"),
        ({"files": []}, "files is not a JSON object"),
        ({"files": {}}, "has no SHA-256"),
        ({"stream": {"level": 5}}, "stream.level is 5"),
        ({"frontend": {"hop": 0.5}}, "frontend.hop is 0.5"),
        ({"models": {"fp32": {"onnxruntime": "../model.onnx"}}}, "leaves the bundle"),
        ({"models": {"fp32": {"onnxruntime": "http://[::1]/model.onnx"}}}, "leaves the bundle"),
        ({"input": {"name": "wave"}}, "input is samples"),
    ],
)
def test_broken_bundles_are_refused_in_one_line(
    ask: Ask, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    folder = make_bundle(tmp_path / "bundle")
    spoil(folder, **changes)
    with pytest.raises(RuntimeError, match=f"^BundleError: [^\n]*{reason}[^\n]*$"):
        ask("load", bundle=folder)
        ask("predict", bundle=folder, **written(tone(0.2), tmp_path))


def test_broken_files_are_refused_in_one_line(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^BundleError: bundle\.json cannot be read"):
        ask("load", bundle=tmp_path)
    folder = make_bundle(tmp_path / "bundle")
    model = bytearray((folder / "model.onnx").read_bytes())
    (folder / "model.onnx").write_bytes(model[:-1])
    with pytest.raises(RuntimeError, match=r"^BundleError: model\.onnx is not as exported"):
        ask("load", bundle=folder)
    digest = mifuse_runtime.bundle.sha256(folder / "model.onnx")
    spoil(folder, files={"model.onnx": digest.upper()})
    with pytest.raises(RuntimeError, match=r"^BundleError: the fp32 model cannot be run"):
        ask("load", bundle=folder)
    for text, reason in ("{", "is not JSON"), ("[]", "is not a JSON object"), (" " * (1 << 20), "is larger"):
        (folder / "bundle.json").write_text(text + " ")
        with pytest.raises(RuntimeError, match=rf"^BundleError: bundle\.json {reason}"):
            ask("load", bundle=folder)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_real_student_says_what_it_says_in_python(
    ask: Ask, known: Path, precision: str, tmp_path: Path
) -> None:
    ask("load", bundle=known, precision=precision)
    recognizer = Recognizer.load(known, precision=precision)
    clip = speech(1.5)
    assert recognizer.bundle.gated
    silence, short = np.zeros(9000, np.float32), clip[8000:9200]
    for samples in (clip, speech(0.4), (tone(3.0) * 32767).astype(np.int16), silence, short):
        same(ask("predict", bundle=known, **written(samples, tmp_path)), recognizer.predict(samples))
    # Windows that do not begin with a frame of the front end.
    options = {"window": 0.5, "hop": 0.11}
    found = ask("stream", bundle=known, cuts=[777], **options, **written(clip, tmp_path))
    with recognizer.stream(**options) as stream:
        expected = stream.feed(clip) + stream.close()
    for one, other in zip(found, expected, strict=True):
        same(one, other, 1e-5 if precision == "fp32" else CLOSE)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("part", ["model", "body"])
def test_graphs_answer_as_on_the_other_engines(ask: Ask, known: Path, precision: str, part: str) -> None:
    from mifuse_export.body import ROUNDING
    from mifuse_export.parity import PARITY, crowd, edge_cases

    bundle = mifuse_runtime.bundle.load(known)
    others = [
        engines.start(known, bundle, engine, precision, 1, body=part == "body")
        for engine in ("onnxruntime", "openvino")
    ]
    front = others[0].graph.front
    assert (front is not None) == (part == "body")
    batches = [signal[None] for signal in edge_cases(bundle.sample_rate).values()]
    for batch in (*batches, crowd(bundle.sample_rate)):
        inputs = np.stack([front.clip(samples) for samples in batch]) if front else batch
        found = ask_graph(ask, others[0].graph.path, inputs)
        for other in others:
            np.testing.assert_allclose(
                found, other(inputs), rtol=0, atol=PARITY if precision == "fp32" else ROUNDING
            )
