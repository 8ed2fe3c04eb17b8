"""The guide's Gradio demo: its real server, asked by Gradio's own client; `mifuse[gradio]`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mifuse_runtime import Recognizer
from tests.bundles import RATE, make_bundle, speech

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("gradio", reason="gradio is missing: pip install 'mifuse[gradio]'")
EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "gradio_demo.py"


def test_an_uploaded_file_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    from gradio_client import Client, handle_file

    monkeypatch.chdir(tmp_path)
    recognizer = Recognizer.load(make_bundle(tmp_path / "bundle"))
    soundfile.write("a.wav", speech(2.0), RATE)
    soundfile.write("silence.wav", 0 * speech(2.0), RATE)
    spec = importlib.util.spec_from_file_location("gradio_demo", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _, address, _ = module.demo.launch(prevent_thread_lock=True, quiet=True)
    try:
        client = Client(address, verbose=False)
        found, silent = (
            client.predict(handle_file(name), api_name="/recognise") for name in ("a.wav", "silence.wav")
        )
    finally:
        module.demo.close()
    wanted = recognizer.predict(speech(2.0))
    assert found["label"] == wanted.label
    shares = {each["label"]: each["confidence"] for each in found["confidences"]}
    assert shares == pytest.approx(wanted.scores, abs=1e-3)
    assert silent["label"] == "no speech"
