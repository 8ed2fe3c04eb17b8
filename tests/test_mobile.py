"""ORT format: the same answers as the ONNX file, constants folded, and through the same gates."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mifuse.cli import main
from mifuse_export import ExportError, engines, mobile
from mifuse_export.parity import check_parity
from mifuse_export.verify import verify_models
from mifuse_runtime import MifuseError, Recognizer
from mifuse_runtime import bundle as bundles
from tests.bundles import RATE
from tests.test_export import Tiny, clips, export

PATHS = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mobile") / "bundle"
    return export(Tiny(), out, labels=("a", "b"), formats=("ort",), max_drop=50)


def test_both_precisions_are_there_and_agree(bundle: Path) -> None:
    content = bundles.load(bundle)
    for precision, name in (("fp32", "mobile/model.ort"), ("int8", "mobile/model.int8.ort")):
        assert content.models[precision] == {
            "onnxruntime": name[7:-4] + ".onnx",
            mobile.ENGINE: name,
        }
        assert name in content.files
        assert (bundle / name).read_bytes()[4:8] == b"ORTM"
        usual, phone = (engines.start(bundle, content, e, precision) for e in content.models[precision])
        assert check_parity(usual, phone, clips(3), RATE, name) < (1e-4 if precision == "int8" else 1e-6)
    assert content.quality["parity"].keys() == {"onnxruntime", mobile.ENGINE}
    assert content.quality["int8"][mobile.ENGINE]["agreement"] == content.quality["int8"]["agreement"]
    assert "| int8 | onnxruntime-mobile | `mobile/model.int8.ort` |" in (bundle / "README.md").read_text()


def test_another_process_writes_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from mifuse_export.mobile import write_ort; "
    script += "[write_ort(*map(Path, pair.split('>'))) for pair in sys.argv[1:]]"
    names = ("model", "model.int8")
    pairs = [f"{bundle / name}.onnx>{tmp_path / name}.ort" for name in names]
    subprocess.run([sys.executable, "-c", script, *pairs], check=True, env=os.environ | PATHS)
    for name in names:
        assert (tmp_path / f"{name}.ort").read_bytes() == (bundle / "mobile" / f"{name}.ort").read_bytes()


def test_verify_runs_it_and_the_device_says_what_it_cannot(bundle: Path) -> None:
    content = bundles.load(bundle)
    reference = engines.start(bundle, content, "onnxruntime", "fp32")
    rows = list(verify_models(bundle, content, reference))
    assert [(row.engine, row.left_out, row.failure) for row in rows] == [
        ("onnxruntime", None, None),
        (mobile.ENGINE, None, None),
    ] * 2
    assert importlib.util.find_spec(mobile.ENGINE) is None
    with pytest.raises(MifuseError, match="unknown engine"):
        Recognizer.load(bundle, engine=mobile.ENGINE)
    assert len(Recognizer.load(bundle, engine="auto").predict(np.zeros(RATE, np.float32)).scores) == 2


def test_the_operators_that_a_build_of_onnx_runtime_needs(bundle: Path) -> None:
    parser = pytest.importorskip("onnxruntime.tools.reduced_build_config_parser")
    text = (bundle / "mobile" / mobile.OPERATORS).read_text(encoding="utf-8")
    assert "/" not in text, "a folder of this machine"
    assert f"mobile/{mobile.OPERATORS}" in bundles.load(bundle).files
    listed, types = parser.parse_config(str(bundle / "mobile" / mobile.OPERATORS), enable_type_reduction=True)
    found = {
        (domain, operator)
        for domain, versions in listed.items()
        for operators in versions.values()
        for operator in operators
    }
    assert found >= {("ai.onnx", "Softmax"), ("ai.onnx", "QuantizeLinear"), ("com.microsoft", "QLinearConv")}
    assert types is not None


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"cannot convert model\.onnx to ORT format"):
        mobile.write_ort(tmp_path / "model.onnx", tmp_path / "mobile" / "model.ort")


def test_the_command_takes_the_format() -> None:
    text = CliRunner().invoke(main, ["export", "-h"]).output
    assert "[onnx|openvino|ort]" in text
