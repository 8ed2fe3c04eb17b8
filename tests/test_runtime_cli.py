"""`mifuse-runtime`: output, exit codes, one-line errors."""

from __future__ import annotations

import ast
import csv
import io
import json
import subprocess
import sys
import tokenize
import wave
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import mifuse_runtime
from mifuse_runtime import bundle as bundles
from mifuse_runtime.__main__ import main
from tests.bundles import LABELS, RATE, expected, make_bundle, tone


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def write(path: Path, samples: np.ndarray) -> str:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return str(path)


def test_predict(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "a.wav", tone(1)), write(tmp_path / "b.wav", tone(2, 3000))
    assert main(["predict", str(bundle), first, second, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == [first, second]
    assert list(lines[1]["scores"].values()) == pytest.approx(expected(tone(2, 3000)), abs=1e-3)
    assert main(["predict", str(bundle), first]) == 0
    assert capsys.readouterr().out.startswith(f"{first}: {lines[0]['label']} 0.")


def test_bad_files_do_not_stop_the_others(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, absent = write(tmp_path / "a.wav", tone(1)), str(tmp_path / "absent.wav")
    assert main(["predict", str(bundle), absent, good]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == len(err.splitlines()) == 1
    assert err.startswith(f"mifuse-runtime: error: {absent}: ")


def test_bundle_that_is_changed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    for command in ("info", "listen"):
        assert main([command, str(bundle)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_info(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(bundle)]) == 0
    out = capsys.readouterr().out
    for word in (
        "angry, happy, neutral, sad",
        "16000 Hz",
        "fp32 for onnxruntime",
        "fp32.ua: 50.0",
        "hand-made",
        "abstain: 0.0",
    ):
        assert word in out
    assert main(["info", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == 1


@pytest.mark.parametrize("arguments", [[], ["dance"], ["predict"], ["predict", "b", "f", "--engine", "x"]])
def test_bad_use_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("command", ["predict", "info", "verify", "listen", "serve"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "-h"])
    assert caught.value.code == 0
    assert f"mifuse-runtime {command} bundle/" in capsys.readouterr().out


def test_folders_patterns_and_csv(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rec/b.wav", "rec/deep/a.WAV", "other/c.wav", "[d].wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write(Path(name), tone(0.2))
    Path("rec/notes.txt").write_text("no audio")
    assert main(["predict", str(bundle), "rec", "o*/**/*.wav", "[d].wav", "none/*.wav", "--csv"]) == 1
    out, err = capsys.readouterr()
    header, *rows = list(csv.reader(out.splitlines()))
    assert header == ["path", "label", "state", "confidence", "start", "end", *LABELS, "speech", "channel"]
    assert [row[0] for row in rows] == ["rec/b.wav", "rec/deep/a.WAV", "other/c.wav", "[d].wav"]
    assert [float(value) for value in rows[0][6:10]] == pytest.approx(expected(tone(0.2)), abs=1e-3)
    assert "mifuse-runtime: rec: left out: .txt 1" in err
    assert "mifuse-runtime: error: none/*.wav: no audio files" in err


@pytest.mark.parametrize(("encoding", "channels", "rate"), [("int16", 2, 8000), ("float32", 1, 48_000)])
def test_raw_samples_from_stdin(
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    channels: int,
    rate: int,
) -> None:
    samples = np.repeat(tone(1, rate=rate)[:, None], channels, axis=1)
    raw = (samples * 32767).astype("<i2") if encoding == "int16" else samples.astype("<f4")
    options = ["--rate", str(rate), "--channels", str(channels), "--encoding", encoding, "--json"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw.tobytes())))
    assert main(["predict", str(bundle), "-", *options, "--channel", "each"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["path"], row["channel"]) for row in rows] == [("-", channel) for channel in range(channels)]
    for content, code in ((raw.tobytes(), 0), (raw.tobytes()[:-1], 1), (b"", 1)):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        assert main(["predict", str(bundle), "-", *options]) == code
        out, err = capsys.readouterr()
        if code == 0:
            assert list(json.loads(out)["scores"].values()) == pytest.approx(expected(tone(1)), abs=3e-3)
        else:
            assert err.startswith("mifuse-runtime: error: stdin: ")


def test_jobs_give_the_same_in_the_same_order(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "many").mkdir()
    for number in range(20):
        write(tmp_path / "many" / f"{number:02}.wav", tone(0.1, 200 + 100 * number))
    (tmp_path / "many" / "07.wav").write_bytes(b"broken")
    command = ["predict", str(bundle), str(tmp_path / "many"), "--json"]
    assert main(command) == 1
    wanted = capsys.readouterr()
    assert main([*command, "--jobs", "2"]) == 1
    assert capsys.readouterr() == wanted
    assert len(wanted.out.splitlines()) == 19
    assert main(["predict", str(bundle), *["-"] * 9, "--jobs", "2"]) == 1
    assert "stdin cannot be shared" in capsys.readouterr().err


def test_progress_on_a_terminal(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    paths = [write(tmp_path / f"{number}.wav", tone(0.1)) for number in range(3)]
    assert main(["predict", str(bundle), *paths]) == 0
    out, err = capsys.readouterr()
    assert err.endswith("\r3/3 files\n")
    assert "\x1b" not in out


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(
        tmp_path / "two", precisions=("fp32", "int8"), openvino=find_spec("openvino") is not None
    )
    assert main(["verify", str(bundle), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"fp32 on onnxruntime", "int8 on onnxruntime"} <= {row["check"] for row in rows}
    assert all(row["result"].startswith(("as exported", "runs")) for row in rows)
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert main(["verify", str(bundle)]) == 1
    assert "SHA-256" in capsys.readouterr().err


def test_verify_finds_a_graph_that_looks_at_its_neighbours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    model = onnx.load(bundle / "model.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 1], np.int64), "axes"))
    for node in model.graph.node:
        if node.op_type == "ReduceMean":  # over the clips too
            node.input[1] = "axes"
    nodes = [onnx.helper.make_node("Sub", ["samples", "samples"], ["zero"])]
    nodes += [onnx.helper.make_node("ReduceSum", ["zero", "axis"], ["zeros"], keepdims=1)]
    nodes += [onnx.helper.make_node("Add", ["floored", "zeros"], ["spread"])]
    before = [node.op_type for node in model.graph.node].index("Log")
    for node in reversed(nodes):
        model.graph.node.insert(before, node)
    model.graph.node[before + 3].input[0] = "spread"
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    content = json.loads((bundle / "bundle.json").read_text())
    content["files"]["model.onnx"] = bundles.sha256(bundle / "model.onnx")
    (bundle / "bundle.json").write_text(json.dumps(content))
    assert main(["verify", str(bundle)]) == 1
    assert "answers differently beside other clips" in capsys.readouterr().err


def after_a_stream(bundle: Path, report: str) -> set[str]:
    """Lines that `report`, an argument of print, gives in a process of its own that has streamed.

    There, `before` is what NumPy and ONNX Runtime alone had loaded.
    """
    code = (
        "import sys, numpy, onnxruntime\n"
        "before = set(sys.modules)\n"
        "import mifuse_runtime\n"
        f"with mifuse_runtime.Recognizer.load({str(bundle)!r}).stream(44_100) as stream:\n"
        "    stream.feed(numpy.zeros(200_000, 'f4'))\n"
        f"print(*{report}, sep='\\n')"
    )
    root = Path(mifuse_runtime.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True)
    return set(done.stdout.splitlines())


def test_library_is_small(bundle: Path) -> None:
    """Lines of code of what an app loads, without comments, docstrings and blank lines."""
    loaded = "(m.__file__ for name, m in sys.modules.items() if 'mifuse_runtime' in name)"
    files = [Path(name) for name in after_a_stream(bundle, loaded)]
    assert {"frontend.py", "stream.py", "vad.py"} <= {file.name for file in files}
    # 850 of them read model files from anywhere and find what these would take, before an engine does.
    assert sum(code_lines(file.read_text(encoding="utf-8")) for file in files) < 2250


def test_library_loads_nothing_large(bundle: Path) -> None:
    """OpenSSL is 3.4 MB, `logging` 0.7, `difflib` 0.2: a stream needs none of them."""
    loaded = after_a_stream(bundle, "set(sys.modules) - before")
    assert "mifuse_runtime.stream" in loaded
    assert not loaded & {"hashlib", "_hashlib", "_ssl", "logging", "difflib"}


def code_lines(text: str) -> int:
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    layout = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in layout
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docstrings)


def test_as_a_process(bundle: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1))
    root = Path(mifuse_runtime.__file__).parents[1]
    command = [sys.executable, "-m", "mifuse_runtime", "predict", str(bundle), *[path] * 3]
    done = subprocess.run(command, check=True, cwd=root, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pedict", "bundle", "a.wav"], "no such command 'pedict': did you mean 'predict'?"),
        (["xyz"], "no such command 'xyz': there are demo, predict, info"),
        (
            ["predict", "b", "a.wav", "--tmeline=1", "--chanel", "0"],
            "'--tmeline=1': did you mean '--timeline'?",
        ),
        (
            ["info", "bundle", "--jsn"],
            "mifuse-runtime info: error: no such argument '--jsn': did you mean '--json'?",
        ),
        (["info", "bundle", "another"], "mifuse-runtime info: error: no such argument 'another'\n"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_a_slip_leads_to_what_was_meant(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and said in capsys.readouterr().err
