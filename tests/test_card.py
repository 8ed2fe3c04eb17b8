"""The model card of a bundle says what bundle.json says, in a form that hubs read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from huggingface_hub import ModelCard

from mifuse_export.card import card
from mifuse_runtime import bundle as bundles
from tests.bundles import make_bundle

INT8 = {"agreement": 98.76, "max_abs_dp": 0.0321, "ua": 61.2}


def test_card(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, ("sad", "a|b"), ("fp32", "int8"), openvino=True)
    bundle = replace(
        bundles.load(folder),
        quality={
            "clips": 40,
            "fp32": {"ua": 62.5},
            "parity_max_abs_dp": 2.5e-7,
            "int8": INT8 | {"openvino": INT8 | {"agreement": 97.5, "ua": None}},
        },
        calibration={"clips": 8},
        provenance={
            "student": {"size": "xs"},
            "seed": 7,
            "int8": {"layers": {"conv1": "int8", "conv2": "fp32"}},
        },
    )
    assert "recognizer.speaker()" in card(folder, replace(bundle, speaker="speaker.npy"))
    text = card(folder, bundle)
    assert "speaker" not in text
    body = ModelCard(text).text
    assert ModelCard(text).data.to_dict() == {
        "library_name": "mifuse",
        "pipeline_tag": "audio-classification",
        "tags": ["speech-emotion-recognition", "onnx", "openvino", "int8"],
    }
    size = (folder / "openvino" / "model.xml").stat().st_size
    size += (folder / "openvino" / "model.bin").stat().st_size
    assert f"| fp32 | openvino | `openvino/model.xml` | {size / 1000:.0f} |" in body
    assert "| fp32 against PyTorch, largest difference of a probability | 2e-07 |" in body
    assert "| int8 on onnxruntime, 40 clips: unweighted accuracy | 61.2 % (fp32 62.5 %) |" in body
    assert "| int8 on openvino, 40 clips: same emotion as fp32 | 97.5 % |" in body
    assert "int8 on openvino, 40 clips: unweighted" not in body
    assert "| layers in 8 bits | 1 of 2 |" in body
    assert "harmed | conv2 |" in body
    assert "| student size | xs |\n| seed | 7 |\n| calibration clips | 8 |" in body
    assert str(tmp_path) not in text


def test_card_of_a_float_bundle(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, ("sad", "happy"))
    text = card(folder, replace(bundles.load(folder), quality={"parity_max_abs_dp": 1e-6}))
    assert "tags:\n- speech-emotion-recognition\n- onnx\n---" in text
    assert "int8" not in text


def test_names_of_others_do_nothing_in_the_card(tmp_path: Path) -> None:
    bundle = replace(
        bundles.load(make_bundle(tmp_path, ("sad", "<b>"))),
        quality={"parity_max_abs_dp": 1e-6},
        provenance={"teachers": "a\x1b[2J\u202e<script>x</script>\nb | c"},
    )
    text = card(tmp_path, bundle)
    assert (
        not set(text) & set("\x1b\u202e")
        and "<script" not in text
        and "# Emotions from speech: sad, &lt;b>" in text
    )
    assert "a\\u001b[2J\\u202e&lt;script>x&lt;/script> b \\| c |" in text
