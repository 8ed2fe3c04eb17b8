"""`mifuse-runtime serve` under load: latency, errors and memory with many clients, and behind its limit.

    python -m benchmarks.serving bundle/ [--clients 60] [--seconds 60] [--every 3]

Each client sends a clip of 3 s, waits for the answer, and sends the next 3 s after the last, as speech comes.
Then twice as many connections as the server takes are opened; the line says how soon one is served again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import numpy as np

from mifuse.exporting.bench import voice
from mifuse_runtime.settings import NO_SPEECH

SECONDS, RATE = 3.0, 16_000  # of a clip


async def client(session: aiohttp.ClientSession, number: int, options: argparse.Namespace) -> list[float]:
    """Seconds of each answer; an error counts as infinite."""
    # Speech: to noise the gate answers "no speech" and runs no graph.
    body = (32_000 * np.roll(voice(SECONDS, RATE), 500 * number)).astype("<i2").tobytes()
    await asyncio.sleep(options.every * number / options.clients)
    found, end = [], time.monotonic() + options.seconds
    while (begin := time.monotonic()) < end:
        try:
            async with session.post(f"/predict?rate={RATE}", data=body) as answer:
                said = await answer.json()
                good = answer.status == 200 and said["state"] != NO_SPEECH
        except aiohttp.ClientError:
            good = False
        found.append(time.monotonic() - begin if good else float("inf"))
        await asyncio.sleep(max(0.0, begin + options.every - time.monotonic()))
    return found


async def load(address: str, options: argparse.Namespace) -> np.ndarray:
    """Seconds of all answers."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(address, connector=connector) as session:
        runs = await asyncio.gather(*(client(session, i, options) for i in range(options.clients)))
    return np.array([one for run in runs for one in run])


async def recover(address: str, most: int) -> tuple[int, float]:
    """Connections that are sent away, and seconds until a request is answered after the others have gone."""
    host, port = address.removeprefix("http://").split(":")
    held = [await asyncio.open_connection(host, int(port)) for _ in range(2 * most)]
    await asyncio.sleep(0.5)
    refused = 0
    for reader, writer in held:
        with contextlib.suppress(asyncio.TimeoutError):
            refused += (await asyncio.wait_for(reader.read(12), 0.01)) == b"HTTP/1.1 503"
        writer.close()
    begin = time.monotonic()
    async with aiohttp.ClientSession(address) as session:
        while True:
            try:
                async with session.get("/info") as answer:
                    if answer.status == 200:
                        return refused, time.monotonic() - begin
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)


def peak(process: int) -> int:
    """Largest resident memory of a process so far, MB (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--every", type=float, default=3.0, help="s between two clips of a client; 0: at once"
    )
    options = parser.parse_args()
    most = 2 * options.clients
    command = [sys.executable, "-m", "mifuse_runtime", "serve", str(options.bundle), "--port", "0"]
    command += ["--max-connections", str(most)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        address = server.stdout.readline().strip()
        times = asyncio.run(load(address, options))
        refused, seconds = asyncio.run(recover(address, most))
        good = times[np.isfinite(times)]
        print(
            json.dumps(
                {
                    "clients": options.clients,
                    "answers": len(good),
                    "errors": int(len(times) - len(good)),
                    "p50_ms": round(1e3 * float(np.percentile(good, 50)), 1),
                    "p99_ms": round(1e3 * float(np.percentile(good, 99)), 1),
                    "peak_mb": peak(server.pid),
                    "refused": refused,
                    "recovered_s": round(seconds, 3),
                    "cores": os.cpu_count(),
                }
            )
        )
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate()


if __name__ == "__main__":
    main()
