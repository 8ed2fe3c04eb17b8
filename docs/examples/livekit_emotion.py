import asyncio

import numpy as np
from livekit.agents import Agent

from mifuse_runtime import Recognizer


class EmotionAgent(Agent):
    """Calls `felt(prediction)` where the caller's state changes; all audio goes on to the speech-to-text."""

    def __init__(self, recognizer: Recognizer, felt, **options):
        super().__init__(**options)
        self.recognizer, self.felt = recognizer, felt

    async def stt_node(self, audio, model_settings):
        async for event in Agent.default.stt_node(self, self.passed_on(audio), model_settings):
            yield event

    async def passed_on(self, audio):
        stream = state = None
        async for frame in audio:
            yield frame
            stream = stream or self.recognizer.stream(frame.sample_rate)
            samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
            for prediction in await asyncio.to_thread(stream.feed, samples):
                if prediction.state != state:
                    state = prediction.state
                    self.felt(prediction)
