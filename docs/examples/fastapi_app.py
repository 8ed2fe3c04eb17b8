import io
from dataclasses import asdict

import numpy as np
from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from mifuse_runtime import AudioError, Prediction, Recognizer, read_audio

MOST = 10 << 20  # bytes of a file
LONGEST = 60.0  # seconds of audio in it

# A form's upload would be parsed before its size is known; this sends the chosen file as the body.
PAGE = """<!doctype html><meta charset="utf-8"><title>Emotions</title>
<input type="file" accept="audio/*"><pre></pre>
<script>
document.querySelector("input").onchange = async ({ target }) => {
  const answer = await fetch("predict", { method: "POST", body: target.files[0] });
  document.querySelector("pre").textContent = JSON.stringify(await answer.json(), null, 2);
};
</script>"""

app = FastAPI()
recognizer = Recognizer.load("bundle/")  # one for all requests: it is safe to share between threads


def recognise(body: bytes) -> Prediction:
    return recognizer.predict(read_audio(io.BytesIO(body), recognizer.sample_rate, longest=LONGEST))


@app.get("/", response_class=HTMLResponse)
async def upload() -> str:
    return PAGE


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
