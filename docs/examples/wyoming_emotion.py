import argparse
import asyncio
from functools import partial

import numpy as np
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.server import AsyncEventHandler, AsyncServer

from mifuse_runtime import MifuseError, Recognizer

LONGEST = 60.0  # seconds of one recording; a client that sends more is sent away
MAKER = {"attribution": Attribution("mifuse", ""), "installed": True, "version": None}


def info(recognizer):
    """What Home Assistant shows: a speech-to-text service whose text is the emotion."""
    words = {"name": "mifuse", "description": f"emotion: {', '.join(recognizer.labels)}"}
    return Info(asr=[AsrProgram(**words, **MAKER, models=[AsrModel(**words, **MAKER, languages=["en"])])])


class EmotionHandler(AsyncEventHandler):
    """One connection: audio in, its emotion as a transcript out."""

    def __init__(self, recognizer, *connection):
        super().__init__(*connection)
        self.recognizer, self.audio, self.format = recognizer, bytearray(), None

    async def handle_event(self, event):
        if Describe.is_type(event.type):
            await self.write_event(info(self.recognizer).event())
        elif AudioStart.is_type(event.type):
            self.audio, self.format = bytearray(), AudioStart.from_event(event)
        elif AudioChunk.is_type(event.type) and self.format:
            self.audio += AudioChunk.from_event(event).audio
            return len(self.audio) <= LONGEST * self.format.rate * self.format.width * self.format.channels
        elif AudioStop.is_type(event.type) and self.format:
            await self.write_event(Transcript(await asyncio.to_thread(self.emotion)).event())
            self.format = None
        return True

    def emotion(self):
        if self.format.width != 2:
            return "error: samples of 16 bits are needed"
        samples = np.frombuffer(bytes(self.audio), np.int16).reshape(-1, self.format.channels)
        try:
            return self.recognizer.predict(samples, self.format.rate).state
        except MifuseError as error:  # no sample at all, say
            return f"error: {error}"


async def main(uri, bundle):
    recognizer = Recognizer.load(bundle)
    await AsyncServer.from_uri(uri).run(partial(EmotionHandler, recognizer))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Emotions for Home Assistant, by the Wyoming protocol.")
    parser.add_argument("bundle")
    parser.add_argument("--uri", default="tcp://127.0.0.1:10401")
    options = parser.parse_args()
    asyncio.run(main(options.uri, options.bundle))
