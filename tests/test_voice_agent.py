"""The guide's Pipecat processor in a real pipeline; `pip install 'mifuse[agents]'`."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mifuse_runtime import NO_SPEECH, Recognizer
from tests.bundles import make_bundle, speech

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "pipecat_emotion.py"


def test_it_passes_all_frames_on_and_adds_the_changes(tmp_path: Path) -> None:
    pytest.importorskip("pipecat", reason="pipecat-ai is missing: pip install 'mifuse[agents]'")
    from pipecat.frames.frames import InputAudioRawFrame, TextFrame
    from pipecat.tests.utils import run_test

    spec = importlib.util.spec_from_file_location("pipecat_emotion", EXAMPLE)
    assert spec and spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    recognizer = Recognizer.load(make_bundle(tmp_path / "bundle"))
    rate = 8_000
    call = np.concatenate([speech(4.0, rate), np.zeros(4 * rate, np.float32)])
    samples = (call * 32767).astype("<i2")
    chunks = np.split(samples, range(rate // 50, len(samples), rate // 50))  # 20 ms, as transports send them
    frames = [InputAudioRawFrame(chunk.tobytes(), rate, 1) for chunk in chunks] + [TextFrame("hello")]
    down, _ = asyncio.run(run_test(example.EmotionProcessor(recognizer), frames_to_send=frames))
    found = [frame.prediction for frame in down if isinstance(frame, example.EmotionFrame)]
    stream = recognizer.stream(rate)
    wanted = [prediction for chunk in chunks for prediction in stream.feed(chunk)]
    states = [None, *(prediction.state for prediction in wanted)]
    assert found == [now for before, now in zip(states[:-1], wanted, strict=True) if before != now.state]
    assert found[-1].state == NO_SPEECH and len(found) == 2
    assert sum(isinstance(frame, InputAudioRawFrame) for frame in down) == len(chunks)
    assert sum(isinstance(frame, TextFrame) for frame in down) == 1
