import asyncio
from dataclasses import dataclass

import numpy as np
from pipecat.frames.frames import DataFrame, Frame, InputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from mifuse_runtime import Prediction, Recognizer


@dataclass
class EmotionFrame(DataFrame):
    prediction: Prediction


class EmotionProcessor(FrameProcessor):
    """Passes every frame on, and adds one where the caller's state changes."""

    def __init__(self, recognizer: Recognizer):
        super().__init__()
        self.recognizer = recognizer
        self.stream = self.state = None

    async def process_frame(self, frame: Frame, direction: FrameDirection):
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if not isinstance(frame, InputAudioRawFrame):
            return
        self.stream = self.stream or self.recognizer.stream(frame.sample_rate)
        samples = np.frombuffer(frame.audio, np.int16).reshape(-1, frame.num_channels)
        for prediction in await asyncio.to_thread(self.stream.feed, samples):
            if prediction.state != self.state:
                self.state = prediction.state
                await self.push_frame(EmotionFrame(prediction))
