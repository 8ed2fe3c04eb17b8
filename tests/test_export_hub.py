"""Audio classifiers of `transformers` through the door of students. They are tiny, their weights random."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
import transformers
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.clips.audio import SAMPLE_RATE
from mifuse.clips.labels import LABELS
from mifuse.models.attention import GatedAttention
from mifuse.models.classifier import load_model
from mifuse_export.parity import PARITY, edge_cases, torch_predict
from mifuse_runtime import Recognizer, engines
from mifuse_runtime import bundle as bundles
from mifuse_runtime.audio import trim_silence
from tests.browser import Ask, ask_graph, needs_web
from tests.bundles import speech
from tests.test_classifier import SMALL, THEIRS

TINY = SMALL | {
    "intermediate_size": 24,
    "conv_kernel": (10, 40),
    "conv_stride": (10, 32),
    "num_conv_pos_embeddings": 6,
    "num_buckets": 32,  # of distances, up to
    "max_bucket_distance": 60,  # which 60 s go far beyond
}
FAMILIES = {
    # As large checkpoints are: layer norms everywhere; a probe of all layers, as `mifuse train` leaves it.
    "wav2vec2": (
        "Wav2Vec2",
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "use_weighted_layer_sum": True},
    ),
    # DistilHuBERT: a HuBERT without the norm before the projection.
    "hubert": ("Hubert", {"feat_proj_layer_norm": False, "conv_bias": True, "do_normalize": False}),
    # The first layer hands the bias of distances to the second.
    "wavlm": ("WavLM", {"num_hidden_layers": 2}),
}


def save(folder: Path, family: str) -> Path:
    """A checkpoint as somebody else would have trained it."""
    name, options = FAMILIES[family]
    normalise = options.get("do_normalize", True)
    torch.manual_seed(0)
    settings = {**TINY, **options, "id2label": dict(enumerate(THEIRS))}
    model = getattr(transformers, f"{name}ForSequenceClassification")(
        getattr(transformers, f"{name}Config")(**settings)
    )
    for parameter in model.parameters():  # so that no bias is zero and no gate is open
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.classifier.weight.data.mul_(8)
    model.save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=normalise)
    extractor.save_pretrained(folder)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    lines = ["path,label,split"]
    for i in range(12):
        soundfile.write(folder / f"{i}.wav", speech(0.5 + 0.1 * i, seed=i, pitch=100 + 20 * i), SAMPLE_RATE)
        lines.append(f"{i}.wav,{LABELS[i % 4]},{'adapt' if i % 3 else 'test'}")
    (folder / "target.csv").write_text("\n".join(lines))
    return folder / "target.csv"


@pytest.fixture(scope="module", params=FAMILIES)
def pair(
    request: pytest.FixtureRequest, manifest: Path, made_once: Callable[[str, Callable[[Path], object]], Path]
) -> tuple[Path, Path]:
    """A checkpoint and its bundle."""

    def make(folder: Path) -> None:
        student = save(folder / "student", request.param)
        options = ("--int8", "--calibration", manifest, "--max-drop", 100, "--force-int8")
        done = run("export", student, "-o", folder / "bundle", *options, "--format", "openvino")
        assert done.exit_code == 0, done.output

    folder = made_once(request.param, make)
    return folder / "student", folder / "bundle"


def test_it_computes_what_transformers_computes(pair: tuple[Path, Path]) -> None:
    """Before any export: our front end, attention and labels beside those of transformers."""
    model = load_model(pair[0])
    theirs = transformers.AutoModelForAudioClassification.from_pretrained(pair[0]).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(pair[0])
    assert any(isinstance(m, GatedAttention) for m in model.modules()) == ("WavLM" in type(theirs).__name__)
    for seconds in (0.1, 3.0):
        samples = np.stack([speech(seconds), 0.2 * speech(seconds, seed=1, pitch=220)])
        inputs = extractor(list(samples), sampling_rate=SAMPLE_RATE, return_tensors="pt", padding=True)
        with torch.inference_mode():
            expected = theirs(**inputs).logits.softmax(-1).numpy()
            found = model(torch.from_numpy(samples)).numpy()
        ours = np.stack([expected[:, names].sum(axis=1) for names in ([2], [1, 5], [0], [3])], axis=1)
        np.testing.assert_allclose(found, ours / ours.sum(axis=1, keepdims=True), atol=1e-5)
        assert np.ptp(found, axis=0).max() > 1e-3  # the clips differ


def test_the_device_says_what_it_says(pair: tuple[Path, Path]) -> None:
    content = bundles.load(pair[1])
    assert content.labels == LABELS
    assert content.bodies == {}  # no log-mel front end to cut off
    assert content.provenance["student"]["model_type"] in FAMILIES
    parity = content.quality["parity"]  # measured by the export, edge cases among them
    assert max(parity[engine] for engine in ("onnxruntime", "openvino")) <= PARITY
    reference = torch_predict(load_model(pair[0]))
    for precision in ("fp32", "int8"):
        scores = Recognizer.load(pair[1], precision=precision).predict(speech(2.0)).scores
        expected = reference(trim_silence(speech(2.0), 16_000)[None])[0]
        np.testing.assert_allclose([*scores.values()], expected, atol=1e-3 if precision == "fp32" else 0.1)


@needs_web
def test_the_web_says_what_it_says(pair: tuple[Path, Path], ask: Ask) -> None:
    content = bundles.load(pair[1])
    reference = torch_predict(load_model(pair[0]))
    for precision in ("fp32", "int8"):
        here = engines.start(pair[1], content, "onnxruntime", precision, 1)
        for name, signal in (edge_cases(SAMPLE_RATE) | {"speech": speech(2.0)}).items():
            expected = (reference if precision == "fp32" else here)(signal[None])
            found = ask_graph(ask, here.graph.path, signal[None])
            # A group norm of silence divides rounding by the root of 1e-5: 1.6e-4 was seen.
            most = 1e-2 if precision == "int8" else 1e-3 if name == "silence" else PARITY
            np.testing.assert_allclose(found, expected, rtol=0, atol=most, err_msg=name)


def test_int8_takes_the_matrices(pair: tuple[Path, Path]) -> None:
    content = bundles.load(pair[1])
    layers = content.provenance["int8"]["layers"]
    parts = ("attention.q_proj", "attention.out_proj", "intermediate_dense", "output_dense", "pos_conv_embed")
    for part in parts:
        assert any(part in name for name in layers), part
    assert not any("classifier" in name or "conv_layers.0" in name for name in layers)
    assert set(layers.values()) == {"int8"}
    stored = [t.data_type for t in onnx.load(pair[1] / "model.int8.onnx").graph.initializer]
    assert stored.count(onnx.TensorProto.INT8) >= len(layers)
    timing = json.loads((pair[1] / "timing.json").read_text())
    assert timing["integer"]["layers"] == len(layers)  # no layer falls back to float


@pytest.mark.parametrize("pair", ["wavlm"], indirect=True)
def test_verify_and_evaluate(pair: tuple[Path, Path], manifest: Path) -> None:
    student, bundle = pair
    checked = run("verify", bundle, manifest, "--student", student, "--max-drop", 100, "--json")
    assert checked.exit_code == 0, checked.output
    models = json.loads(checked.stdout)["models"]
    assert [model["failure"] for model in models] == [None] * 4
    scores = [run("evaluate", model, manifest, "--split", "test", "--json") for model in (student, bundle)]
    assert [score.exit_code for score in scores] == [0, 0]


def test_what_is_not_exported(tmp_path: Path) -> None:
    from tests.test_hub import WHISPER, save_encoder

    def refused(folder: Path, *options: object) -> str:
        result = run("export", folder, "-o", tmp_path / "out", *options)
        assert result.exit_code == 1
        assert len(result.output.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()
        return result.output

    whisper = transformers.WhisperConfig(**WHISPER, id2label=dict(enumerate(LABELS)))
    transformers.WhisperForAudioClassification(whisper).save_pretrained(tmp_path / "whisper")
    transformers.WhisperFeatureExtractor(feature_size=8).save_pretrained(tmp_path / "whisper")
    assert "is a whisper, which takes spectrograms" in refused(tmp_path / "whisper")
    assert "has no trained head" in refused(save_encoder(tmp_path / "encoder", "WavLM"))
    folder = save(tmp_path / "pickled", "hubert")
    assert "is a hubert, and a budget narrows" in refused(folder, "--budget-kb", 100)
    weights = torch.nn.Linear(1, 1).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "which mifuse does not open" in refused(folder)
    config = json.loads((folder / "config.json").read_text())
    save(folder, "hubert")
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "calm", "1": "sad"}}))
    assert "classifier.bias is missing or of another size" in refused(folder)
    strange = {"id2label": dict.fromkeys(range(6), "calm"), "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config | strange))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "has the labels calm, calm" in refused(folder)
    assert not (tmp_path / "ran").exists()
