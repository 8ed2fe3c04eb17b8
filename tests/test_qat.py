"""Quantisation-aware fine-tuning: it rounds as the exported graph does, and rescues a fragile student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.exporting import fine_tuning as qat
from mifuse.models.classifier import load_model
from mifuse.models.features import Features
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, Trainer
from mifuse_export.calibration import calibrate
from mifuse_export.onnx import frozen, write_onnx
from mifuse_export.parity import probabilities, torch_predict
from mifuse_export.qat import insert, remove, roundings
from mifuse_export.quantize import quantize
from mifuse_runtime import bundle as bundles

pytestmark = pytest.mark.learning

COUNT, STEPS = 24, 80


def voiced(i: int) -> np.ndarray:
    """Harmonics in syllables; each of four emotions has its pitch."""
    rng = np.random.default_rng(i)
    t = np.arange(SAMPLE_RATE // 2 + 500 * i) / SAMPLE_RATE
    pitch, pace = 90 * 1.6 ** (i % 4) * rng.uniform(0.9, 1.1), rng.uniform(3, 12)
    tone = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 20))
    noise = 0.02 * rng.standard_normal(len(t))
    return (0.1 * tone * np.sin(pace * t) ** 2 + noise).astype(np.float32)


def stretched(student: Student, spread: float) -> Student:
    """The same function by channels of other scales: floats do not mind, one range for all of them does."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block, following in zip(student.blocks, student.blocks[1:], strict=False):
            scales = torch.exp(spread * torch.randn(len(block.norm.weight), generator=generator))
            block.norm.weight *= scales
            block.norm.bias *= scales
            following.conv.weight /= scales[:, None, None]
    return student


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, and a fragile student that knows its clips."""
    folder = tmp_path_factory.mktemp("place")
    for i in range(COUNT):
        soundfile.write(folder / f"{i}.wav", voiced(i), SAMPLE_RATE, subtype="FLOAT")
    (folder / "target.csv").write_text("\n".join(["path", *(f"{i}.wav" for i in range(COUNT))]))
    features = Features.of(read_manifest(folder / "target.csv").clips, AudioCache(folder / "cache"))
    torch.manual_seed(0)
    config = FitConfig(steps=STEPS, momentum=0.9, label_smoothing=0.1, augment=qat.PLAIN)
    fit = Trainer(Student(size="xs"), features, config)
    while fit.epoch < fit.epochs:
        fit.run_epoch(np.eye(4)[np.arange(COUNT) % 4])
    stretched(fit.average, 1.5).save_pretrained(folder / "student")
    return folder


def test_it_rounds_as_the_exported_graph_does(place: Path, tmp_path: Path) -> None:
    student, samples = frozen(load_model(place / "student")), [voiced(i) for i in range(COUNT)]
    write_onnx(student, tmp_path / "model.onnx", labels=student.labels, sample_rate=SAMPLE_RATE)
    found = calibrate(onnx.load(tmp_path / "model.onnx"), samples[::4])
    onnx.save(quantize(found.model, found.ranges), tmp_path / "int8.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
    exported = probabilities(lambda batch: session.run(None, {"samples": batch})[0], samples)
    places = roundings(found.model, found.ranges)
    assert list(places) == [f"blocks.{i}.conv" for i in range(1, 5)]  # the first stays in float
    copy = qat.folded(student)
    as_float = probabilities(torch_predict(copy), samples)
    insert(copy, places)
    rounded = probabilities(torch_predict(copy), samples)
    assert np.abs(rounded - exported).mean() < 0.2 * np.abs(as_float - exported).mean()
    remove(copy)
    assert np.array_equal(probabilities(torch_predict(copy), samples), as_float)
    assert np.abs(as_float - probabilities(torch_predict(student), samples)).max() < 1e-4


def test_a_fragile_student_is_rescued(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qat, "CONFIG", replace(qat.CONFIG, steps=STEPS))
    monkeypatch.setenv("MIFUSE_CACHE", str(tmp_path / "cache"))
    call = [
        place / "student",
        "--int8",
        "--calibration",
        place / "target.csv",
        "--max-drop",
        "5",
        "--force-int8",
    ]
    plain = run(*call, "-o", tmp_path / "plain")
    int8s = 0
    if plain.exit_code == 0:
        done = bundles.load(tmp_path / "plain").provenance["int8"]
        assert done["retrained"] is None
        int8s = list(done["layers"].values()).count("int8")
    assert int8s < 4  # it fails, or keeps layers in float
    result = run(*call, "-o", tmp_path / "rescued", "--qat")
    assert result.exit_code == 0, result.output
    assert f"fine-tuned for it: {STEPS} steps on {COUNT} clips" in result.output
    bundle = bundles.load(tmp_path / "rescued")
    assert bundle.provenance["int8"]["retrained"] == {"steps": STEPS, "clips": COUNT}
    assert list(bundle.provenance["int8"]["layers"].values()).count("int8") > int8s
    assert bundle.quality["int8"]["agreement"] >= 95
    assert bundle.quality["parity_max_abs_dp"] < 1e-4  # fp32 is the student's


def test_it_is_for_int8(place: Path, tmp_path: Path) -> None:
    result = run(place / "student", "--qat", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "--qat is for the 8-bit model" in result.output
