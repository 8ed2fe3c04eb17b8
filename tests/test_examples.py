"""The embedding guide: it quotes its examples, and each of them runs (the page's in test_web_page.py)."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from mifuse_runtime import NO_SPEECH, Recognizer
from tests.browser import WEB, needs_web
from tests.bundles import LABELS, RATE, make_bundle, speech

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
GUIDE = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
ANSWER = re.compile(rf"a\.wav ({'|'.join(LABELS)}) [01]\.\d\d\n")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that examples run in, with a bundle and a recording."""
    make_bundle(tmp_path / "bundle")
    soundfile.write(tmp_path / "a.wav", speech(2.0), RATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ran(*command: object, **environment: str) -> str:
    env = {**os.environ, **environment}
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=env)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_guide_quotes_every_example() -> None:
    quoted = dict(re.findall(r"\[examples/([\w.]+)\]\([^)]+\)[^`]*```\w+\n(.*?)```", GUIDE, flags=re.DOTALL))
    files = {path.name: path.read_text(encoding="utf-8") for path in EXAMPLES.iterdir() if path.is_file()}
    assert quoted == files


@pytest.mark.parametrize("link", re.findall(r"\]\(([^): ]+)\)", GUIDE))
def test_its_links_lead_somewhere(link: str) -> None:
    path, _, heading = link.partition("#")
    target = ROOT / "docs" / (path or "embedding.md")
    assert target.exists()
    if heading:
        titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert heading in {title.lower().replace(" ", "-") for title in titles}


def test_files(place: Path) -> None:
    code = (EXAMPLES / "files.py").read_text(encoding="utf-8")
    assert len([line for line in code.splitlines() if line]) <= 10
    found = ran(sys.executable, EXAMPLES / "files.py", "a.wav", PYTHONPATH=str(ROOT / "runtime"))
    assert ANSWER.fullmatch(found)


def test_speaker(place: Path, known: Path) -> None:
    shutil.rmtree("bundle")
    shutil.copytree(known, "bundle")
    for count in (1, 2):
        found = ran(sys.executable, EXAMPLES / "speaker.py", "a.wav", PYTHONPATH=str(ROOT / "runtime"))
        assert re.fullmatch(rf"a\.wav ({'|'.join(LABELS)}) [01]\.\d\d, {count} heard\n", found)


def test_microphone(place: Path) -> None:
    samples = np.concatenate([speech(4.0), np.zeros(4 * RATE, np.float32), speech(4.0)])
    blocks = [block[:, None] for block in np.array_split(samples, 100)]  # (n, 1), as devices give them
    recognizer = Recognizer.load("bundle/")
    found = list(load("microphone.py").changes(recognizer.stream(RATE), iter(blocks)))
    states = [state for _, state in found]
    assert states == [states[0], NO_SPEECH, states[0]]
    assert states[0] in LABELS
    assert found[0][0] == pytest.approx(3.0)


def test_fastapi(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx2")
    from fastapi.testclient import TestClient

    module = load("fastapi_app.py")
    wanted = Recognizer.load("bundle/").predict(speech(2.0))
    samples = (speech(4.0, 8000) * 32767).astype(np.int16)
    expected = Recognizer.load("bundle/").stream(8000).feed(samples)
    assert len(expected) == 2
    with TestClient(module.app) as client:
        answer = client.post("/predict", content=Path("a.wav").read_bytes())
        assert answer.status_code == 200
        assert answer.json()["scores"] == pytest.approx(wanted.scores, abs=1e-4)
        assert answer.json()["label"] == wanted.label
        page = client.get("/").text
        assert '<input type="file"' in page and 'fetch("predict", { method: "POST"' in page
        refused = client.post("/predict", content=b"text")
        assert (refused.status_code, "not an audio file" in refused.text) == (400, True)
        monkeypatch.setattr(module, "LONGEST", 1.0)
        assert "longer than 1 s" in client.post("/predict", content=Path("a.wav").read_bytes()).text
        monkeypatch.setattr(module, "MOST", 1000)
        assert client.post("/predict", content=Path("a.wav").read_bytes()).status_code == 413
        with client.websocket_connect("/stream?rate=8000") as socket:
            socket.send_bytes(samples.tobytes())
            assert [socket.receive_json() for _ in expected] == [asdict(found) for found in expected]


@pytest.fixture
def pool(place: Path) -> Iterator[str]:
    with load("thread_pool.py").Server(("127.0.0.1", 0), "bundle/") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_thread_pool(pool: str) -> None:
    wanted = Recognizer.load("bundle/").predict(speech(2.0))

    def ask(body: bytes, **headers: str) -> tuple[int, dict[str, object]]:
        try:
            with urllib.request.urlopen(urllib.request.Request(pool, body, headers), timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    with ThreadPoolExecutor(8) as clients:
        for status, content in clients.map(ask, [Path("a.wav").read_bytes()] * 16):
            assert (status, content["label"]) == (200, wanted.label)
            assert content["scores"] == pytest.approx(wanted.scores, abs=1e-4)
    status, content = ask(b"text")
    assert (status, "not an audio file" in str(content["error"])) == (400, True)
    assert ask(b"", **{"Content-Length": str(1 << 40)})[0] == 413


@needs_web
def test_node(place: Path) -> None:
    # What `npm install --install-links` leaves: the package's files, and onnxruntime-web beside them.
    modules = place / "node_modules"
    package = json.loads((WEB / "package.json").read_text(encoding="utf-8"))
    for name in ("package.json", *package["files"]):
        copy = shutil.copytree if name.endswith("/") else shutil.copy
        (modules / package["name"]).mkdir(parents=True, exist_ok=True)
        copy(WEB / name, modules / package["name"] / name)
    (modules / "onnxruntime-web").symlink_to(WEB / "node_modules" / "onnxruntime-web", True)
    shutil.copy(EXAMPLES / "node.mjs", place)
    found = ran("node", "node.mjs", "a.wav")
    assert ANSWER.fullmatch(found)
    assert found == ran(sys.executable, EXAMPLES / "files.py", "a.wav", PYTHONPATH=str(ROOT / "runtime"))
