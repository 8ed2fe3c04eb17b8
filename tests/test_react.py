"""The guide's React hook in a component: real React, the real recogniser, a microphone of the test's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mifuse_runtime import Recognizer
from tests.browser import WEB, needs_web
from tests.bundles import make_bundle, speech

HERE = Path(__file__).resolve().parent
MODULES = HERE / "react" / "node_modules"


@needs_web
@pytest.mark.skipif(not MODULES.is_dir(), reason="React is missing: npm ci --prefix tests/react")
def test_the_hook_shows_what_a_stream_says_and_closes_the_microphone(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    samples = np.concatenate([speech(4.0), np.zeros(64_000, np.float32)])
    (tmp_path / "speech.f32").write_bytes(samples.astype("<f4").tobytes())
    for file in (HERE.parent / "docs" / "examples" / "useEmotion.js", HERE / "react" / "drive.mjs"):
        shutil.copy(file, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    modules = tmp_path / "node_modules"
    modules.mkdir()
    for folder in MODULES.iterdir():
        (modules / folder.name).symlink_to(folder)
    ours = modules / "mifuse-runtime-web"
    ours.mkdir()
    shutil.copy(WEB / "package.json", ours)
    shutil.copy(WEB / "mifuse.js", ours)
    shutil.copytree(WEB / "mifuse", ours / "mifuse")
    (modules / "onnxruntime-web").symlink_to(WEB / "node_modules" / "onnxruntime-web")
    run = subprocess.run(
        ["node", "drive.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    states = [
        prediction.state for prediction in Recognizer.load(tmp_path / "bundle").stream(16_000).feed(samples)
    ]
    shown = [state for state in found["seen"] if state is not None]
    assert list(dict.fromkeys(shown)) == list(dict.fromkeys(states)) and found["state"] == states[-1]
    assert (found["listening"], found["error"], found["closed"]) == (False, None, 1)
    assert (found["refused"], found["still"]) == ("not allowed", False)
    assert found["left"] == 1  # the component was gone
