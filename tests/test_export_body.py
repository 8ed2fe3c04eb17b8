"""The body beside the whole model: cut from the same graph, the same answers, one front end on the device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mifuse.models.frontend import HOP, N_MELS, LogMel
from mifuse.models.student import Student
from mifuse_export import ExportError, export_bundle, mobile
from mifuse_export.body import ROUNDING, check_bodies, write_bodies, write_body
from mifuse_export.parity import PARITY
from mifuse_export.speech import add_speech
from mifuse_export.speech_parity import PARITY as PARITY_OF_SPEECH
from mifuse_export.speech_parity import check_speech
from mifuse_runtime import BundleError, Recognizer, engines
from mifuse_runtime import bundle as bundles
from mifuse_runtime.__main__ import main
from mifuse_runtime.audio import trim_silence
from mifuse_runtime.settings import NO_SPEECH, FrontEnd
from mifuse_runtime.vad import speech_share
from tests.bundles import RATE, graph, speech, tone
from tests.exported import FRONT
from tests.test_export import lived_in


def clips() -> list[np.ndarray]:
    return [speech(seconds, seed=seed) for seed, seconds in enumerate((0.4, 1.0, 1.7, 3.0))]


def test_every_model_has_a_body_that_says_the_same(known: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundles.load(known)
    assert {(p, e) for p, files in bundle.bodies.items() for e in files} == {
        (p, e) for p, files in bundle.models.items() for e in files
    }
    assert bundle.frontend == FRONT
    assert check_bodies(known, bundle, clips()) <= ROUNDING
    assert bundle.quality["body_max_abs_dp"] <= ROUNDING
    assert check_bodies(known, replace(bundle, bodies={"fp32": bundle.bodies["fp32"]}), clips()) <= PARITY
    assert main(["verify", str(known)]) == 0
    assert capsys.readouterr().out.count("its body says the same") == 4
    assert main(["info", str(known)]) == 0
    assert "body.int8.onnx" in capsys.readouterr().out


def test_weights_and_ranges_are_those_of_the_model(known: Path) -> None:
    for name in ("onnx", "int8.onnx"):
        whole, body = (onnx.load(known / f"{form}.{name}") for form in ("model", "body"))
        tensors = {t.name: numpy_helper.to_array(t) for t in whole.graph.initializer}
        stored = {t.name: numpy_helper.to_array(t) for t in body.graph.initializer}
        shared = stored.keys() & tensors.keys()
        assert {n for n in tensors if n.startswith(("blocks.", "head."))} <= shared
        assert all(np.array_equal(stored[n], tensors[n]) for n in shared)
        assert not [n for n in stored if n.startswith("frontend.")]
        assert body.metadata_props == whole.metadata_props
        assert [d.dim_param or d.dim_value for d in body.graph.input[0].type.tensor_type.shape.dim] == [
            "batch",
            "frames",
            N_MELS,
        ]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_device_says_what_the_whole_model_says(known: Path, engine: str, precision: str) -> None:
    recognizer = Recognizer.load(known, engine, precision=precision)
    whole = engines.start(known, recognizer.bundle, engine, precision, 1)
    most = PARITY if precision == "fp32" else ROUNDING
    samples = speech(5.0, seed=3)
    for clip in (samples[:1600], samples[: 3 * RATE], samples[:47_999], np.zeros(5000, np.float32)):
        scores = list(recognizer.predict(clip, gate=False).scores.values())
        assert scores == pytest.approx(whole(trim_silence(clip, RATE)[None])[0], abs=most)
    found = recognizer.stream(window=2.0, hop=0.25).feed(samples)
    assert len(found) == 13
    for prediction in found:
        if prediction.label in recognizer.labels:
            window = samples[round(prediction.start * RATE) // HOP * HOP : round(prediction.end * RATE)]
            assert list(prediction.scores.values()) == pytest.approx(whole(window[None])[0], abs=most)


def sounds() -> dict[str, np.ndarray]:
    rng, voice = np.random.default_rng(0), speech(3.0, seed=2)
    return {
        "voice": voice,
        "noisy voice": voice + (0.02 * rng.standard_normal(voice.size)).astype(np.float32),
        "quiet voice": voice * np.float32(0.003),
        "voice and a frame": voice[: 70 * HOP],
        "less than a hop more": voice[: 70 * HOP + 100],
        "half a second": voice[20_000:28_000],
        "shorter than a graph takes": voice[20_000:21_000],
        "tone": tone(2.0),
        "ringback": tone(3.0) * (np.arange(3 * RATE) % RATE < 0.4 * RATE).astype(np.float32),
        "noise": (0.1 * rng.standard_normal(2 * RATE)).astype(np.float32),
        "silence": np.zeros(RATE, np.float32),
    }


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_graph_says_what_the_gate_says(known: Path, engine: str, precision: str) -> None:
    recognizer = Recognizer.load(known, engine, precision=precision)
    assert recognizer.bundle.gated
    made, settings = sounds(), recognizer.bundle.stream
    wanted = {name: speech_share(trim_silence(clip, RATE), settings, RATE) for name, clip in made.items()}
    assert wanted["voice"] > 0.2 > 0.1 > max(wanted["tone"], wanted["noise"], wanted["silence"])
    alone = {name: recognizer.predict(clip) for name, clip in made.items()}
    assert {name: found.speech for name, found in alone.items()} == pytest.approx(wanted, abs=0.011)
    assert alone["tone"].state == alone["silence"].state == NO_SPEECH != alone["voice"].state
    together = recognizer.predict_batch([*made.values(), made["voice"]])
    assert [found.speech for found in together] == pytest.approx(
        [*wanted.values(), wanted["voice"]], abs=0.011
    )


def test_every_graph_gives_the_log_odds_of_speech(known: Path) -> None:
    bundle = bundles.load(known)
    assert check_speech(known, bundle, clips()) < PARITY_OF_SPEECH
    assert bundle.quality["speech_max_abs_dlogit"] < PARITY_OF_SPEECH


def test_the_file_of_phones_gives_the_log_odds_of_speech(known: Path, tmp_path: Path) -> None:
    mobile.write_ort(known / "model.onnx", tmp_path / "model.ort")
    bundle = replace(bundles.load(known), models={"fp32": {mobile.ENGINE: "model.ort"}})
    assert check_speech(tmp_path, bundle, clips()) < PARITY_OF_SPEECH


def test_rows_that_are_other_bins_are_found(known: Path, tmp_path: Path) -> None:
    model = onnx.load(known / "model.onnx")
    graph = model.graph
    for part in (graph.node, graph.initializer, graph.output):
        kept = [one for one in part if not one.name.startswith("speech")]
        del part[:]
        part.extend(kept)
    add_speech(graph, np.roll(LogMel().bins, 16))
    graph.output.sort(key=lambda one: one.name == "embedding")  # the last one
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    files = {"model.onnx": bundles.sha256(tmp_path / "model.onnx")}
    bundle = replace(bundles.load(known), models={"fp32": {"onnxruntime": "model.onnx"}}, files=files)
    with pytest.raises(ExportError, match=r"speech of model\.onnx differs from NumPy's by"):
        check_speech(tmp_path, bundle, clips())
    with pytest.raises(BundleError, match="its inputs and outputs are"):
        engines.start(tmp_path, replace(bundle, gated=False), "onnxruntime", "fp32", 1)
    with pytest.raises(ExportError, match="leave out its `bins`"):
        add_speech(onnx.load(known / "body.onnx").graph, LogMel().bins)


def test_bundle_without_bodies_runs_as_before(known: Path, tmp_path: Path) -> None:
    content = json.loads((known / "bundle.json").read_text())
    for key in ("bodies", "frontend"):
        del content[key]
    for name in content["files"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((known / name).read_bytes())
    (tmp_path / "bundle.json").write_text(json.dumps(content))
    old, new = (Recognizer.load(path, precision="fp32") for path in (tmp_path, known))
    assert old._front is None
    for clip in clips():
        left, right = old.predict(clip, gate=False), new.predict(clip, gate=False)
        assert list(left.scores.values()) == pytest.approx(list(right.scores.values()), abs=1e-4)


def test_other_numbers_than_the_models_are_found(known: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"body.* differs from its whole model by"):
        export_bundle(
            lived_in(Student(size="xs")),
            tmp_path / "bundle",
            labels=("angry", "happy", "neutral", "sad"),
            calibration=clips(),
            frontend=FrontEnd(HOP, N_MELS, 60.0, 6000.0),
        )
    assert list(tmp_path.iterdir()) == []


def test_damaged_body_is_found_by_verify(
    known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in known.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = onnx.load(tmp_path / "body.onnx")
    bias = next(t for t in model.graph.initializer if t.name == "head.bias")
    bias.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32([0, 0, 0, 0.1]), bias.name)
    )
    (tmp_path / "body.onnx").write_bytes(model.SerializeToString())
    content = json.loads((tmp_path / "bundle.json").read_text())
    with pytest.raises(BundleError):
        Recognizer.load(tmp_path)
    for part in ("models", "bodies"):
        content[part] = {"fp32": {"onnxruntime": content[part]["fp32"]["onnxruntime"]}}
    names = (content["models"]["fp32"]["onnxruntime"], "body.onnx", content["speaker"])
    content |= {"default": "fp32", "files": {name: bundles.sha256(tmp_path / name) for name in names}}
    (tmp_path / "bundle.json").write_text(json.dumps(content))
    assert main(["verify", str(tmp_path)]) == 1
    assert "the body differs by" in capsys.readouterr().err


def test_graph_without_that_front_end(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(graph())
    with pytest.raises(ExportError, match=r"model\.onnx is not a front end and a body"):
        write_body(tmp_path / "model.onnx", tmp_path / "body.onnx", FRONT)
    with pytest.raises(ExportError):
        write_bodies(tmp_path, {("fp32", "onnxruntime"): "model.onnx"}, FRONT)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
