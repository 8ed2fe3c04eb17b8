"""The recogniser: right answers, any usable audio, one clear line for the rest."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mifuse_runtime
from mifuse_runtime import AudioError, BundleError, MifuseError, Recognizer
from mifuse_runtime.quiet import import_openvino
from tests.bundles import LABELS, RATE, expected, make_bundle, tone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("recognizer") / "bundle", precisions=("int8", "fp32"))


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> Recognizer:
    return Recognizer.load(folder)


def scores(recognizer: Recognizer, samples: object, rate: float | None = None) -> list[float]:
    return list(recognizer.predict(samples, rate).scores.values())  # type: ignore[arg-type]


def test_answer_is_the_graphs(recognizer: Recognizer) -> None:
    prediction = recognizer.predict(tone(1.5))
    values = list(prediction.scores.values())
    assert values == pytest.approx(expected(tone(1.5)), abs=1e-6)
    assert sum(values) == pytest.approx(1, abs=1e-12)
    assert tuple(prediction.scores) == recognizer.labels == LABELS
    assert prediction.label == LABELS[int(np.argmax(values))]
    assert (prediction.start, prediction.end) == (0.0, 1.5)


def test_silence_at_the_ends_is_left_out(recognizer: Recognizer) -> None:
    room = 1e-4 * np.sin(np.arange(RATE, dtype=np.float32))  # 80 dB below full scale
    found = recognizer.predict(np.concatenate([room, tone(1.5), room, room]))
    assert found.scores == recognizer.predict(tone(1.5)).scores
    assert (found.start, found.end) == (0.0, 4.5)
    assert recognizer.predict(room).scores != found.scores  # the loudest frame decides, not a level


def test_repr_is_a_card(recognizer: Recognizer) -> None:
    assert "angry, happy, neutral, sad; fp32 on onnxruntime, threads=1" in repr(recognizer)
    assert recognizer.sample_rate == RATE


def test_int16_stereo_and_lists_are_the_same(recognizer: Recognizer) -> None:
    samples = tone(0.5)
    whole = (samples * 32768).round().astype(np.int16)
    assert scores(recognizer, whole) == pytest.approx(expected(samples), abs=1e-4)
    assert scores(recognizer, np.stack([whole] * 8, axis=1)) == pytest.approx(expected(samples), abs=1e-4)
    assert scores(recognizer, samples[:, None]) == pytest.approx(expected(samples), abs=1e-6)
    assert scores(recognizer, samples.tolist()) == pytest.approx(expected(samples), abs=1e-6)
    assert scores(recognizer, samples.astype(np.float64)[::-1]) == pytest.approx(expected(samples), abs=1e-3)


def test_samples_are_left_as_they_were(recognizer: Recognizer) -> None:
    samples = tone(0.5)
    samples.flags.writeable = False
    recognizer.predict(samples, 8000)


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000, 192_000])
def test_rate_makes_no_difference(recognizer: Recognizer, rate: int) -> None:
    found = recognizer.predict(tone(1, rate=rate), rate)
    assert list(found.scores.values()) == pytest.approx(expected(tone(1)), abs=2e-3)
    assert found.end == 1


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(1, np.float32),
        np.ones(1, np.int16),
        np.zeros(RATE, np.float32),
        np.sign(tone(1)),
        np.full(RATE, -32768, np.int16),
    ],
    ids=["one sample", "one int16 sample", "silence", "clipped", "full scale"],
)
def test_odd_audio_is_recognised(recognizer: Recognizer, samples: np.ndarray) -> None:
    assert sum(scores(recognizer, samples)) == pytest.approx(1)


def test_ten_minutes(recognizer: Recognizer) -> None:
    assert recognizer.predict(np.zeros(600 * RATE, np.int16)).end == 600


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        (np.zeros(0, np.float32), "empty"),
        ([], "empty"),
        (np.zeros((0, 2), np.int16), "empty"),
        (np.array([0, np.nan, 0], np.float32), "NaN or infinity"),
        (np.array([[0, np.inf], [0, -np.inf]]), "NaN or infinity"),
        (np.array([0, 1e39]), "NaN or infinity"),
        (np.array([12000.0, -3.0]), "reach 12000"),
        (np.zeros(9, np.int32), "int32"),
        (np.zeros(9, np.uint8), "uint8"),
        (np.zeros(9, bool), "bool"),
        (np.zeros(9, np.complex64), "complex64"),
        ("a.wav", "<U5"),
        (None, "object"),
        ([[0.0], [0.0, 0.1]], "not an array"),
        (np.float32(0.5), "shape ()"),
        (np.zeros((2, 16_000), np.float32), "transpose"),
        (np.zeros((5, 0), np.float32), "shape (5, 0)"),
        (np.zeros((2, 2, 2), np.float32), "shape (2, 2, 2)"),
    ],
)
def test_samples_that_cannot_be_used(recognizer: Recognizer, samples: object, word: str) -> None:
    with pytest.raises(AudioError) as caught:
        recognizer.predict(samples)  # type: ignore[arg-type]
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0, -1, 1e9, 16_000.5, float("nan")])
def test_rates_that_cannot_be_used(recognizer: Recognizer, rate: float) -> None:
    with pytest.raises(AudioError, match="sample rate is"):
        recognizer.predict(tone(0.1), rate)
    with pytest.raises(AudioError, match="sample rate is"):
        recognizer.stream(rate)


@given(lengths=st.lists(st.sampled_from((1, 800, 1600, 4000, 4001, 9000)), max_size=9))
@settings(max_examples=15, deadline=None)
def test_batch_is_predict(recognizer: Recognizer, lengths: list[int]) -> None:
    rng = np.random.default_rng(len(lengths))
    clips = [0.1 * rng.standard_normal(length).astype(np.float32) for length in lengths]
    batch = recognizer.predict_batch(clips)
    for clip, found in zip(clips, batch, strict=True):
        single = recognizer.predict(clip)
        assert (found.label, found.start, found.end) == (single.label, single.start, single.end)
        assert list(found.scores.values()) == pytest.approx(list(single.scores.values()), abs=1e-6)


def test_batch_larger_than_a_run(recognizer: Recognizer) -> None:
    clips = [tone(40, 200 + 50 * number) for number in range(4)]
    for clip, found in zip(clips, recognizer.predict_batch(clips), strict=True):
        assert list(found.scores.values()) == pytest.approx(expected(clip), abs=1e-4)


def test_batch_names_the_bad_clip(recognizer: Recognizer) -> None:
    with pytest.raises(AudioError, match="clip 1: there are no samples"):
        recognizer.predict_batch([tone(0.1), []])


def test_precision(folder: Path) -> None:
    assert scores(Recognizer.load(folder, precision="int8"), tone(1)) != scores(
        Recognizer.load(folder), tone(1)
    )
    with pytest.raises(BundleError, match="no fp16 model for onnxruntime: it has int8 for onnxruntime, fp32"):
        Recognizer.load(folder, precision="fp16")
    with pytest.raises(BundleError, match="no fp32 model for openvino"):
        Recognizer.load(folder, engine="openvino")


def test_labels_that_the_model_does_not_have(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    text = (folder / "bundle.json").read_text().replace('"sad"', '"sad", "bored"')
    (folder / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match="answer is not probabilities"):
        Recognizer.load(folder).predict(tone(0.1))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_threads_may_share_one(tmp_path: Path, engine: str) -> None:
    pytest.importorskip(engine)
    recognizer = Recognizer.load(make_bundle(tmp_path, openvino=engine == "openvino"), engine=engine)
    clips = [tone(0.2, 100 + 40 * number) for number in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for clip, found in zip(clips, pool.map(recognizer.predict, clips), strict=True):
            assert list(found.scores.values()) == pytest.approx(expected(clip), abs=1e-3)


def test_openvino_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MifuseError, match=r"not installed: pip install 'mifuse-runtime\[openvino\]'"):
        import_openvino()


def test_imports_nothing_else(folder: Path) -> None:
    code = (
        "import sys, numpy, mifuse_runtime\n"
        "assert 'onnxruntime' not in sys.modules\n"
        f"r = mifuse_runtime.Recognizer.load({str(folder)!r}); r.predict(numpy.zeros(9000, 'f4'), 8000)\n"
        "foreign = 'torch torchaudio onnx click scipy librosa soundfile soxr openvino mifuse mifuse_export'\n"
        "sys.exit(' '.join(name for name in foreign.split() if name in sys.modules) or None)\n"
    )
    root = Path(mifuse_runtime.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -0.5])
def test_dimensions_that_are_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    loaded = Recognizer.load(make_bundle(tmp_path / "b", dimensions={"arousal": (1, 7), "valence": (1, 7)}))
    assert 1 <= loaded.predict(tone()).dimensions["arousal"] <= 7
    answer = np.array([[0.25, 0.25, 0.25, 0.25, value, 0.5]], np.float32)
    monkeypatch.setattr(type(loaded._whole), "answers", lambda *_: [answer])
    with pytest.raises(BundleError, match="not numbers from 0 to 1"):
        loaded.predict(tone())
