"""A bundle that is not as exported is refused in one clear line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from mifuse_runtime import BundleError, Recognizer
from mifuse_runtime import bundle as bundles
from mifuse_runtime.bundle import Bundle
from mifuse_runtime.settings import Settings
from tests.bundles import LABELS, make_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", precisions=("fp32", "int8"))


def edit(folder: Path, **changes: object) -> None:
    """Set keys of bundle.json; None removes one."""
    content = json.loads((folder / "bundle.json").read_text()) | changes
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "bundle.json").write_text(json.dumps(content))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        Recognizer.load(folder)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_round_trip(folder: Path) -> None:
    bundle = bundles.load(folder)
    assert bundle.labels == LABELS
    assert bundle.model("onnxruntime") == "model.int8.onnx"
    assert bundle.model("onnxruntime", "fp32") == "model.onnx"
    assert Bundle.from_json(bundle.to_json()) == bundle
    content = json.loads(bundle.to_json())
    assert content["input"] == {"name": "samples", "dtype": "float32", "shape": ["batch", "samples"]}
    assert content["output"] == {"name": "probs", "dtype": "float32", "shape": ["batch", 4]}


@pytest.mark.parametrize("stripped", [False, True])
def test_sha256_is_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stripped: bool) -> None:
    content = bytes(range(256)) * 8193  # more than one block
    (tmp_path / "file").write_bytes(content)
    if stripped:  # a Python without a SHA-256 of its own
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert bundles.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_bundle_from_before_streams_had_settings(folder: Path) -> None:
    edit(folder, stream=None)
    assert bundles.load(folder).stream == Settings()
    edit(folder, stream={"abstain": 0.4, "level": -50})
    assert bundles.load(folder).stream == Settings(abstain=0.4, level=-50)


def test_changed_byte(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    refused(folder, "model.onnx", "SHA-256")


def test_missing_file(folder: Path) -> None:
    (folder / "model.int8.onnx").unlink()
    refused(folder, "model.int8.onnx is missing")


def test_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "is not a bundle")
    refused(tmp_path, "is not a bundle")


def test_newer_schema(folder: Path) -> None:
    edit(folder, schema=2, something_new=1)
    refused(folder, "schema 2", "upgrade")


@pytest.mark.parametrize(
    "name",
    ["../model.onnx", "/etc/passwd", "a/../../model.onnx", "..\\model.onnx", "C:model.onnx", ""],
)
def test_path_that_climbs_out(folder: Path, name: str) -> None:
    edit(folder, files={name: "00" * 32}, models={"int8": {"onnxruntime": name}})
    refused(folder, "leaves the bundle's folder")


def test_unknown_key_names_the_nearest(folder: Path) -> None:
    edit(folder, lables=["a"])
    refused(folder, "unknown key 'lables'", "did you mean 'labels'?")
    edit(folder, lables=None, zzzz=1)
    refused(folder, "unknown key 'zzzz'", "known are schema")


@pytest.mark.parametrize(
    "key", ["schema", "labels", "sample_rate", "window", "input", "default", "models", "files"]
)
def test_absent_key(folder: Path, key: str) -> None:
    edit(folder, **{key: None})
    refused(folder, f"has no {key!r}")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"schema": "1"}, "schema '1'"),
        ({"labels": ["angry"]}, "labels"),
        ({"labels": ["angry", "angry"]}, "different"),
        ({"labels": 7}, "wrong type"),
        ({"labels": ["angry", 3]}, "3 is not a name"),
        ({"labels": ["angry", "\x1b[2Jsad"]}, "is not a name"),
        ({"files": {"a\0b": "00" * 32}}, "is not a name"),
        ({"files": {"a" * 300: "00" * 32}, "models": {"int8": {"onnxruntime": "a" * 300}}}, "cannot be read"),
        ({"sample_rate": "16000"}, "sample_rate"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"window": -1}, "window"),
        ({"gated": 1}, "gated is 1, true or false expected"),
        ({"window": "3"}, "wrong type"),
        ({"default": "fp16"}, "'fp16'"),
        ({"models": []}, "models is not"),
        ({"models": {"int8": ["model.onnx"]}}, "wrong type"),
        ({"models": {"int8": {"onnxruntime": "other.onnx"}}}, "no SHA-256"),
        ({"files": {"model.onnx": "abc"}}, "wrong type"),
        ({"files": {"model.onnx": "ab"}}, "SHA-256"),
        ({"files": {"model.onnx": 5}}, "wrong type"),
        ({"input": "samples"}, "input is not"),
        ({"input": {}}, "wrong type"),
        ({"calibration": 5}, "calibration"),
        ({"labels": ["angry", "no speech"]}, "the runtime's own"),
        ({"stream": 5}, "stream is not"),
        ({"stream": {"abstain": 1.5}}, "stream.abstain is 1.5, 0 to 1 expected"),
        ({"stream": {"level": "loud"}}, "stream.level is 'loud', -200 to 0"),
        ({"stream": {"smoothing": True}}, "stream.smoothing is True"),
        ({"stream": {"flatness": float("nan")}}, "stream.flatness is nan"),
        ({"stream": {"absten": 0.5}}, "did you mean 'abstain'?"),
        ({"frontend": {"hops": 256}}, "did you mean 'hop'?"),
        ({"frontend": {"hop": 256.0}}, "frontend.hop is 256.0, 8 to 4096"),
        ({"frontend": {"mels": 10**9}}, "frontend.mels is 1000000000, 1 to 1024"),
        ({"frontend": {"mels": True}}, "frontend.mels is True, 1 to 1024"),
        ({"frontend": {"folded": 1}}, "frontend.folded is 1, False to True expected"),
        ({"frontend": {"low": 8000, "high": 60}}, "frontend goes from 8000 to 60 Hz"),
        ({"bodies": {"int8": {"onnxruntime": "body.onnx"}}}, "'body.onnx' has no SHA-256"),
        (
            {"models": {"int8": {"openvino": "model.xml"}}, "files": {"model.xml": "00" * 32}},
            "'model.bin' has",
        ),
    ],
)
def test_wrong_values(folder: Path, changes: dict[str, object], word: str) -> None:
    edit(folder, **changes)
    refused(folder, word)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\xff\xfe"])
def test_not_json(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_bytes(text.encode("latin-1"))
    refused(folder, "bundle.json")


def test_huge_json(folder: Path) -> None:
    with (folder / "bundle.json").open("ab") as file:
        file.truncate(bundles.MAX_JSON + 1)
    refused(folder, "larger than")


def test_model_that_cannot_be_run(folder: Path) -> None:
    (folder / "model.int8.onnx").write_bytes(b"not a graph")
    files = json.loads((folder / "bundle.json").read_text())["files"]
    files["model.int8.onnx"] = bundles.sha256(folder / "model.int8.onnx")
    edit(folder, files=files)
    refused(folder, "model.int8.onnx cannot be run")


def test_other_input_name(folder: Path) -> None:
    edit(folder, input={"name": "waveform"})
    refused(folder, "inputs and outputs are ['samples'] and ['probs']")


def test_links_into_a_store_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "model.onnx").rename(tmp_path / "blob")
    (folder / "model.onnx").symlink_to(tmp_path / "blob")
    assert Recognizer.load(folder).labels == LABELS
