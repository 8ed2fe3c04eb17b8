"""The engines: one answer from both, the faster one found once, nothing sent or written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import mifuse_runtime
from mifuse_runtime import BundleError, MifuseError, Recognizer, engines, fastest
from mifuse_runtime.graph import Engine
from tests.bundles import expected, make_bundle, speech, tone
from tests.test_runtime_graph import rehash


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino")
    return make_bundle(tmp_path_factory.mktemp("engines"), precisions=("int8", "fp32"), openvino=True)


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "_CHOSEN", {})


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "auto"])
def test_streams_are_the_same_to_a_thousandth(folder: Path, engine: str) -> None:
    wanted = Recognizer.load(folder).stream(window=1.0).feed(speech(4))
    found = Recognizer.load(folder, engine).stream(window=1.0).feed(speech(4))
    assert [(p.state, p.speech) for p in found] == [(p.state, p.speech) for p in wanted]
    for left, right in zip(found, wanted, strict=True):
        assert list(left.scores.values()) == pytest.approx(list(right.scores.values()), abs=1e-3)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_samples_of_any_make(folder: Path, engine: str) -> None:
    samples = tone(0.2)
    fixed = np.frombuffer(samples.tobytes(), np.float32)[None]
    run = engines.start(folder, mifuse_runtime.bundle.load(folder), engine, "fp32", 1)
    for batch in (fixed, np.repeat(samples, 2)[None, ::2]):
        assert run(batch)[0] == pytest.approx(expected(samples), abs=1e-3)


def slow(engine: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make an engine the slower one; the list grows by one for each time that engines are timed."""
    timed: list[int] = []

    def times(started: list[Engine], length: int) -> list[float]:
        timed.append(length)
        return [seconds(run) for run in started]

    def seconds(run: Engine) -> float:
        assert run(tone(0.2)[None])[0] == pytest.approx(expected(tone(0.2)), abs=1e-3)
        return 2.0 if run.name == engine else 1.0

    monkeypatch.setattr(fastest, "_times", times)
    return timed


@pytest.mark.parametrize(("slower", "chosen"), [("openvino", "onnxruntime"), ("onnxruntime", "openvino")])
def test_auto_times_once(folder: Path, monkeypatch: pytest.MonkeyPatch, slower: str, chosen: str) -> None:
    timed = slow(slower, monkeypatch)
    for _ in range(2):
        assert f"fp32 on {chosen}," in repr(Recognizer.load(folder, "auto"))
    assert timed == [48_000]
    Recognizer.load(folder, "auto", precision="fp32")
    Recognizer.load(folder, "auto", threads=2)  # another case
    assert len(timed) == 2


def test_auto_notes_its_choice_only_in_a_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = slow("onnxruntime", monkeypatch)
    cache = tmp_path / "new" / "cache"
    Recognizer.load(folder, "auto", cache=cache)
    (note,) = cache.iterdir()
    assert note.read_text() == "openvino"
    fastest._CHOSEN.clear()  # another process
    assert "on openvino" in repr(Recognizer.load(folder, "auto", cache=cache))
    assert len(timed) == 1
    note.write_bytes(b"\xff../../x")  # damaged: timed again
    fastest._CHOSEN.clear()
    assert "on openvino" in repr(Recognizer.load(folder, "auto", cache=cache))
    assert len(timed) == 2
    assert note.read_text() == "openvino"


def test_times_are_of_real_calls(folder: Path) -> None:
    bundle = mifuse_runtime.bundle.load(folder)
    started = [engines.start(folder, bundle, name, None, 1) for name in engines.ENGINES]
    assert all(0 < seconds < 1 for seconds in fastest._times(started, 1600))


def test_auto_without_openvino(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "on onnxruntime" in repr(Recognizer.load(make_bundle(tmp_path), "auto"))
    with pytest.raises(BundleError, match="no fp16 model"):
        Recognizer.load(folder, "auto", precision="fp16")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "on onnxruntime" in repr(Recognizer.load(folder, "auto"))


@pytest.mark.parametrize(
    ("options", "word"), [({"engine": "tflite"}, "'tflite': use auto or"), ({"threads": 0}, "threads is 0")]
)
def test_wrong_options(folder: Path, options: dict[str, object], word: str) -> None:
    with pytest.raises(MifuseError, match=word):
        Recognizer.load(folder, **options)  # type: ignore[arg-type]


QUIET = """
import sys, os

def refuse(event, arguments):
    writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
    sends = event in ("socket.connect", "socket.getaddrinfo", "socket.sendto")
    if (writes and arguments[0] != os.devnull) or sends or event in ("os.mkdir", "os.rename"):
        os.write(2, f"{event} {arguments}".encode())
        os._exit(3)

sys.addaudithook(refuse)
import numpy
from mifuse_runtime import Recognizer
for engine in ("onnxruntime", "openvino", "auto"):
    Recognizer.load(sys.argv[1], engine).stream(window=0.5).feed(numpy.zeros(9000, "f4"))
"""


def test_nothing_is_sent_or_written(folder: Path) -> None:
    root = Path(mifuse_runtime.__file__).parents[1]
    command = [sys.executable, "-B", "-c", QUIET, str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_arena_is_off_and_telemetry_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    said: list[str] = []
    options: list[onnxruntime.SessionOptions] = []
    session = onnxruntime.InferenceSession

    def watched(content: bytes, chosen: onnxruntime.SessionOptions, **others: object) -> object:
        options.append(chosen)
        return session(content, chosen, **others)

    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: said.append("off"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    recognizer = Recognizer.load(folder)
    assert said == ["off"]
    assert (options[0].enable_cpu_mem_arena, options[0].intra_op_num_threads) == (False, 1)
    assert np.isfinite(list(recognizer.predict(tone(0.1)).scores.values())).all()


@pytest.mark.parametrize(
    ("engine", "file"), [("onnxruntime", "model.onnx"), ("openvino", "openvino/model.xml")]
)
def test_an_opset_of_tomorrow_asks_for_another_engine(tmp_path: Path, engine: str, file: str) -> None:
    folder = make_bundle(tmp_path, openvino=engine == "openvino")
    if engine == "onnxruntime":
        model = onnx.load(folder / file)
        model.opset_import[0].version = 99
        onnx.save(model, folder / file)
    else:
        text = (folder / file).read_text().replace('version="opset1"', 'version="opset99"')
        (folder / file).write_text(text)
    rehash(folder)
    with pytest.raises(BundleError, match=rf"by {engine} [0-9.]+.* \(.*opset.*\): upgrade it, or") as caught:
        engines.start(folder, mifuse_runtime.bundle.load(folder), engine, "fp32", 1)
    assert "\n" not in str(caught.value)
