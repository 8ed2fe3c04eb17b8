"""SIGKILL at random moments: what label, adapt, export and serve lose, buy twice or leave half-written.

    python -m benchmarks.killing demo/ [--rounds 20] [--only label,export]

DEMO is the folder of `mifuse demo`. Each command is started and killed so often, then it is let finish.
Printed: kills, and what was found wrong, which should be nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mifuse.teachers.store.database import DrawsStore
from mifuse_runtime import Recognizer
from tests.llm_server import LlmServer

SHORTEST = 0.3  # s until a kill

Moments = Sequence[float]  # of kills, 0 to 1 of the time that is looked at


def command(*words: object) -> list[str]:
    """Of mifuse."""
    return [sys.executable, "-m", "mifuse", *map(str, words)]


def killed(words: Sequence[str], seconds: float, environment: dict[str, str] | None = None) -> bool:
    """Run a command and kill it after so long; False if it had ended before."""
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def label(demo: Path, folder: Path, moments: Moments) -> tuple[int, list[str]]:
    """Draws are kept, and bought once, by the server's own count."""
    kills, wrong = 0, []
    with LlmServer(latency=0.05, keep=False) as running:
        server: Any = running
        words = command(
            "label", demo / "data" / "phone" / "manifest.csv", "--teacher", "openai", "--model", "m", "--yes",
            "--store", folder / "d.db", "--base-url", f"{server.url}/v1", "--price", "1,1,1", "--draws", 8,
            "--concurrency", 8,
        )  # fmt: skip
        environment = os.environ | {"OPENAI_API_KEY": server.key, "MIFUSE_CACHE": str(folder / "cache")}
        for moment in moments:
            kills += killed(words, SHORTEST + 1 + 5 * moment, environment)
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        with DrawsStore(folder / "d.db") as store:
            (source,) = store.sources()
            stored, (paid, _) = len(store.keys(source)), store.spent()[source]
        bill = sum(server.usage[kind] for kind in ("prompt_tokens", "completion_tokens")) / 1e6
        wrong += [] if done.returncode == 0 else [f"the last run says {done.stderr[-200:]}"]
        wrong += [] if set(server.sold.values()) == {1} else ["requests were sold twice"]
        wrong += [] if paid <= bill + 1e-9 else [f"${paid} is booked of a bill of ${bill}"]
        sys.stderr.write(f"label: {stored} draws, booked ${paid:.4f} of ${bill:.4f} on the bill\n")
    return kills, wrong


def adapt(demo: Path, folder: Path, moments: Moments) -> tuple[int, list[str]]:
    """The student is there whole or not at all, and a killed run goes on."""
    out = folder / "student"
    words = command(
        "adapt", "--source", demo / "source", "--target", demo / "data" / "phone" / "manifest.csv",
        "--draws", demo / "draws.db", "-o", out,
    )  # fmt: skip
    return _until_whole(words, out / "model.safetensors", folder, moments, lambda: None)


def export(demo: Path, folder: Path, moments: Moments) -> tuple[int, list[str]]:
    """The bundle is there whole or not at all."""
    out = folder / "bundle"
    words = command("export", demo / "student", "-o", out)

    def check() -> None:
        Recognizer.load(out)

    return _until_whole(words, out / "bundle.json", folder, moments, check)


def _until_whole(
    words: Sequence[str],
    file: Path,
    folder: Path,
    moments: Moments,
    check: Callable[[], None],
) -> tuple[int, list[str]]:
    kills, wrong = 0, []
    environment = os.environ | {"MIFUSE_CACHE": str(folder / "cache")}
    for moment in moments:
        if killed(words, SHORTEST + 1 + 24 * moment, environment):
            kills += 1
        if file.exists():
            try:
                check()
            except Exception as error:
                wrong.append(f"half-written: {error}")
            shutil.rmtree(file.parent)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not file.exists():
        wrong.append(f"the last run says {done.stderr[-200:]}")
    left = [
        path.name
        for path in folder.iterdir()
        if path.name.startswith(".") or path.suffix in (".part", ".tmp")
    ]
    return kills, wrong + ([f"left behind: {', '.join(left)}"] if left else [])


def serve(demo: Path, folder: Path, moments: Moments) -> tuple[int, list[str]]:
    """It comes back on the same port, and answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mifuse_runtime", "serve", str(demo / "bundle"), "--port", str(port)]
    kills, wrong = 0, []
    for moment in moments:
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert server.stdout
        said = server.stdout.readline()
        time.sleep(0.3 * moment)
        if f":{port}" not in said:
            wrong.append(f"it does not come back: {said}")
        elif b"labels" not in _asked(port):
            wrong.append("it does not answer")
        server.kill()
        server.communicate()
        kills += 1
    return kills, wrong


def _asked(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(b"GET /info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = b""
        while part := raw.recv(65536):
            got += part
    return got


COMMANDS = {"label": label, "adapt": adapt, "export": export, "serve": serve}


def main() -> None:
    """Print a table, then the same as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rows = []
    print("| command | kills | wrong |")
    print("| --- | ---: | --- |")
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            chance = random.Random(options.seed)
            moments = [chance.random() for _ in range(options.rounds)]
            kills, wrong = COMMANDS[name](options.demo.absolute(), Path(folder), moments)
        rows.append({"command": name, "kills": kills, "wrong": wrong})
        print(f"| {name} | {kills} | {'; '.join(wrong) or 'nothing'} |", flush=True)
    print(json.dumps(rows))
    sys.exit(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
