"""The guide's agents in a real Pipecat pipeline, LiveKit session, Wyoming server; `mifuse[agents]`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pytest

from mifuse_runtime import NO_SPEECH, Prediction, Recognizer
from tests.bundles import make_bundle, speech

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(rate: int) -> list[np.ndarray]:
    """4 s of speech and 4 s of silence as int16, in 20 ms, as transports send them."""
    samples = np.concatenate([speech(4.0, rate), np.zeros(4 * rate, np.float32)])
    return np.split((samples * 32767).astype("<i2"), range(rate // 50, len(samples), rate // 50))


def changes(recognizer: Recognizer, chunks: list[np.ndarray], rate: int) -> list[Prediction]:
    """Of a stream of its own: where its state becomes another one."""
    stream = recognizer.stream(rate)
    found = [prediction for chunk in chunks for prediction in stream.feed(chunk)]
    states = [None, *(prediction.state for prediction in found)]
    return [now for before, now in zip(states[:-1], found, strict=True) if before != now.state]


def test_it_passes_all_frames_on_and_adds_the_changes(tmp_path: Path) -> None:
    pytest.importorskip("pipecat", reason="pipecat-ai is missing: pip install 'mifuse[agents]'")
    from pipecat.frames.frames import InputAudioRawFrame, TextFrame
    from pipecat.tests.utils import run_test

    example = load("pipecat_emotion")
    recognizer = Recognizer.load(make_bundle(tmp_path / "bundle"))
    rate = 8_000
    chunks = call(rate)
    frames = [InputAudioRawFrame(chunk.tobytes(), rate, 1) for chunk in chunks] + [TextFrame("hello")]
    down, _ = asyncio.run(run_test(example.EmotionProcessor(recognizer), frames_to_send=frames))
    found = [frame.prediction for frame in down if isinstance(frame, example.EmotionFrame)]
    assert found == changes(recognizer, chunks, rate)
    assert found[-1].state == NO_SPEECH and len(found) == 2
    assert sum(isinstance(frame, InputAudioRawFrame) for frame in down) == len(chunks)
    assert sum(isinstance(frame, TextFrame) for frame in down) == 1


def test_an_agent_passes_the_call_on_and_says_the_changes(tmp_path: Path) -> None:
    pytest.importorskip("livekit.agents", reason="livekit-agents is missing: pip install 'mifuse[agents]'")
    from livekit import rtc
    from livekit.agents import AgentSession, stt
    from livekit.agents.voice.io import AudioInput

    recognizer = Recognizer.load(make_bundle(tmp_path / "bundle"))
    rate = 16_000
    chunks, heard, felt = call(rate), [], []

    class Stream(stt.RecognizeStream):
        async def _run(self) -> None:
            async for frame in self._input_ch:
                if isinstance(frame, rtc.AudioFrame):
                    heard.append(bytes(frame.data))  # noqa: PERF401, as they come

    class Listener(stt.STT):
        def __init__(self) -> None:
            super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False))

        async def _recognize_impl(self, *_: Any, **__: Any) -> NoReturn:
            raise NotImplementedError

        def stream(self, *, language: Any = None, conn_options: Any) -> Stream:
            return Stream(stt=self, conn_options=conn_options)

    class Caller(AudioInput):
        def __init__(self) -> None:
            super().__init__(label="caller")
            self.left = iter(chunks)

        async def __anext__(self) -> rtc.AudioFrame:
            chunk = next(self.left, None)
            await asyncio.sleep(0 if chunk is not None else 3600)
            return rtc.AudioFrame(chunk.tobytes(), rate, 1, len(chunk))

    async def talk() -> None:
        session = AgentSession(stt=Listener())
        session.input.audio = Caller()
        agent = load("livekit_emotion").EmotionAgent(recognizer, felt.append, instructions="Listen.")
        await session.start(agent)
        for _ in range(600):
            await asyncio.sleep(0.05)
            if len(felt) == 2 and len(heard) >= len(chunks):
                break
        await session.aclose()

    asyncio.run(talk())
    assert felt == changes(recognizer, chunks, rate)
    assert felt[-1].state == NO_SPEECH and len(felt) == 2
    # The session itself adds silence when it ends.
    assert b"".join(heard).startswith(b"".join(chunk.tobytes() for chunk in chunks))


def test_a_service_for_home_assistant(tmp_path: Path) -> None:
    pytest.importorskip("wyoming", reason="wyoming is missing: pip install 'mifuse[agents]'")
    from wyoming.asr import Transcript
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.info import Describe, Info

    example = load("wyoming_emotion")
    bundle = make_bundle(tmp_path / "bundle")
    rate, port = 16_000, free_port()

    async def ask(chunks: list[np.ndarray], width: int = 2) -> str | None:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(AudioStart(rate, width, 1).event())
            for chunk in chunks:
                await client.write_event(AudioChunk(rate, width, 1, chunk.tobytes()).event())
            await client.write_event(AudioStop().event())
            event = await asyncio.wait_for(client.read_event(), 30)
            return None if event is None else Transcript.from_event(event).text

    async def session() -> tuple[Info, list[str | None]]:
        server = asyncio.create_task(example.main(f"tcp://127.0.0.1:{port}", bundle))
        await connected(port)
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Describe().event())
            described = Info.from_event(await client.read_event())
        long = [np.zeros(round(example.LONGEST * rate) + 1, "<i2")]
        said = [
            await ask(call(rate)[:200]),
            await ask([]),
            await ask(call(rate)[:1], width=4),
            await ask(long),
        ]
        server.cancel()
        return described, said

    described, (felt, empty, wide, long) = asyncio.run(session())
    recognizer = Recognizer.load(bundle)
    assert recognizer.labels[0] in described.asr[0].description
    assert felt == recognizer.predict(np.concatenate(call(rate)[:200]), rate).state
    assert empty and empty.startswith("error: ") and wide == "error: samples of 16 bits are needed"
    assert long is None  # sent away


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def connected(port: int) -> None:
    for _ in range(600):
        await asyncio.sleep(0.05)
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
    raise TimeoutError(port)
