import io
from dataclasses import asdict

import numpy as np
from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.concurrency import run_in_threadpool

from mifuse_runtime import AudioError, Prediction, Recognizer, read_audio

MOST = 10 << 20  # bytes of a file
LONGEST = 60.0  # seconds of audio in it

app = FastAPI()
recognizer = Recognizer.load("bundle/")  # one for all requests: it is safe to share between threads


def recognise(body: bytes) -> Prediction:
    return recognizer.predict(read_audio(io.BytesIO(body), recognizer.sample_rate, longest=LONGEST))


@app.post("/predict")
async def predict(request: Request) -> dict:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST:
            raise HTTPException(413, f"the file is larger than {MOST} bytes")
    try:
        return asdict(await run_in_threadpool(recognise, bytes(body)))
    except AudioError as error:
        raise HTTPException(400, str(error)) from error


@app.websocket("/stream")
async def stream(socket: WebSocket, rate: int = 16_000) -> None:
    await socket.accept()
    with recognizer.stream(rate) as audio:  # a stream belongs to one connection
        async for data in socket.iter_bytes():  # of int16 samples
            samples = np.frombuffer(data, np.int16)
            for found in await run_in_threadpool(audio.feed, samples):
                await socket.send_json(asdict(found))
