"""How `mifuse label` behaves under fire: throughput, memory, kill -9, faults, budget, by the server's counts.

    python -m benchmarks.labelling [--clips 10000] [--draws 5] [--rate 100] [--latency 0.05] [--kills 10]
                                   [--only throughput kills faults budget]

The real command in a process of its own, through the openai SDK, against tests/llm_server.py in another one.
Requests: one draw each. Synthetic noise for audio; what is said of it does not matter here.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workers import popen
from mifuse.exporting.bench import machine
from mifuse.teachers.prices import price_of

PRICE = "2.5,10,2.5"  # audio priced as text: the server counts both together
KEY = {"OPENAI_API_KEY": "test-key"}


@dataclass(frozen=True)
class Finished:
    """One run of the command."""

    seconds: float
    megabytes: float  # peak resident memory
    code: int
    output: str


def make_clips(folder: Path, count: int, seconds: float = 0.25) -> Path:
    """A manifest of `count` WAV files of different noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(rng.integers(-9000, 9000, int(16_000 * seconds), dtype="<i2").tobytes())
    manifest = folder / "target.csv"
    manifest.write_text("path\n" + "".join(f"{i}.wav\n" for i in range(count)))
    return manifest


@contextmanager
def server(**options: float) -> Iterator[str]:
    """Address of a server in a process of its own."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    process = popen("tests.llm_server", words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def stats(url: str) -> dict[str, Any]:
    """The server's counts."""
    with urllib.request.urlopen(f"{url}/stats", timeout=10) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def start(url: str, manifest: Path, store: Path, draws: int, *more: str) -> subprocess.Popen[bytes]:
    """The command, as a user types it."""
    words = ["label", manifest, "--teacher", "openai", "--model", "m", "--price", PRICE, "--yes", "--json"]
    words += ["--base-url", f"{url}/v1", "--store", store, "--draws", draws, "--per-request", 1, *more]
    environment = {**os.environ, **KEY, "MIFUSE_CACHE": str(manifest.parent / "cache")}
    return popen(
        "mifuse", [*map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def finish(process: subprocess.Popen[bytes], started: float) -> Finished:
    """Wait for it, and for what it took."""
    assert process.stdout
    output = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Finished(time.monotonic() - started, usage.ru_maxrss / 1024, process.returncode, output)


def label(url: str, manifest: Path, store: Path, draws: int, *more: str) -> Finished:
    """Run the command to its end."""
    started = time.monotonic()
    return finish(start(url, manifest, store, draws, *more), started)


def resident(process: subprocess.Popen[bytes]) -> float:
    """Peak resident memory so far, MB; 0 of a process that has ended, and where /proc does not say."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0.0
    peak = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(peak[1]) / 1024 if peak else 0.0


def row(what: str, expected: str, found: str, good: bool) -> bool:
    """Print one line of the table."""
    print(f"| {what} | {expected} | {found} | {'yes' if good else 'NO'} |", flush=True)
    return good


def throughput(manifest: Path, folder: Path, options: argparse.Namespace) -> bool:
    """Against the rate limit; and memory."""
    wanted = options.clips * options.draws
    with server(latency=options.latency, rate=options.rate) as url:
        started = time.monotonic()
        process = start(url, manifest, folder / "rate.db", options.draws)
        while (early := resident(process)) and stats(url)["sold"] < wanted / 10:
            time.sleep(1)
        run = finish(process, started)
        counts = stats(url)
    # By the server's clock, so without the start of the process. A second's worth passes at once.
    found = counts["sold"] / max(1e-3, counts["seconds"])
    share = found / options.rate
    size = f"{options.clips} x {options.draws} at {options.rate:g}/s"
    done = run.code == 0 and counts["sold"] == wanted
    shown = f"{share:.0%} ({found:.0f}/s, {counts['statuses'].get('429', 0)} x 429)"
    good = row(f"throughput, {size}", ">= 80 % of the limit", shown, done and share >= 0.8)
    shown = f"{run.megabytes:.0f} MB, {early:.0f} at a tenth of the draws"
    flat = run.megabytes < 300 and run.megabytes < early + 30
    return row("peak memory", "< 300 MB, flat", shown, flat) and good


def kills(manifest: Path, folder: Path, options: argparse.Namespace) -> bool:
    """kill -9 at random moments, and resume."""
    wanted, chance = options.clips * options.draws, random.Random(0)
    with server(latency=options.latency) as url:
        landed = 0
        for _ in range(options.kills):
            process = start(url, manifest, folder / "kill.db", options.draws)
            target = stats(url)["sold"] + chance.randint(1, max(1, wanted // (options.kills + 1)))
            while stats(url)["sold"] < target and process.poll() is None:
                time.sleep(chance.uniform(0.0, 0.02))
            landed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate()
        run = label(url, manifest, folder / "kill.db", options.draws)
        counts = stats(url)
    found = json.loads(run.output) if run.code == 0 else {"present": 0, "added": 0}
    missing = wanted - found["present"] - found["added"]
    twice = counts["sold"] - counts["keys"]
    shown = f"{twice} twice, {missing} missing; {counts['requests'] - counts['keys']} sent again"
    good = twice == missing == 0 and counts["keys"] == wanted
    return row(f"kill -9, {landed} times", "each draw bought once", shown, good)


def faults(manifest: Path, folder: Path, options: argparse.Namespace) -> bool:
    """A share of all requests goes wrong, in ten ways."""
    rows = [_faults(manifest, folder, options, mix) for mix in (0.01, 0.2)]
    return all(rows)


def _faults(manifest: Path, folder: Path, options: argparse.Namespace, mix: float) -> bool:
    wanted = options.clips * options.draws
    with server(latency=options.latency, mix=mix) as url:
        run = label(url, manifest, folder / f"mix{mix}.db", options.draws)
        counts = stats(url)
    found = json.loads(run.output) if run.code == 0 else {"added": 0, "invalid": 0}
    lost, twice = wanted - found["added"], counts["sold"] - counts["keys"]
    shown = f"{lost} lost, {twice} twice; {found['invalid']} invalid answers asked again"
    return row(f"{mix:.0%} faults", "0 lost, 0 twice", shown, lost == twice == 0)


def budget(manifest: Path, folder: Path, options: argparse.Namespace) -> bool:
    """Half of what is wanted can be paid; answers take so long that 64 requests are open."""
    with server(latency=max(options.latency, 0.4)) as url:
        limit = round(0.0008 * options.clips * options.draws / 2, 4)
        label(url, manifest, folder / "budget.db", options.draws, "--budget-usd", str(limit))
        counts = stats(url)
    usage = {"input": counts["usage"]["prompt_tokens"], "output": counts["usage"]["completion_tokens"]}
    spent = price_of("openai", "m", PRICE).usd(usage)
    shown = f"${spent:.4f}, {counts['most_open']} open at most"
    good = counts["most_open"] == 64 and 0.9 * limit < spent <= limit
    return row(f"budget of ${limit}", "never passed, 64 open", shown, good)


def main() -> int:
    """Print the table; exit code 1 when a line of it is not as expected."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--rate", type=float, default=100.0, help="requests/s that the server allows")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--kills", type=int, default=10)
    lines: dict[str, Callable[[Path, Path, argparse.Namespace], bool]] = {
        "throughput": throughput, "kills": kills, "faults": faults, "budget": budget,
    }  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=lines, default=list(lines), help="lines of the table")
    options = parser.parse_args()
    print(f"{machine()}\n")
    print("| what | expected | found | as expected |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = make_clips(folder / "clips", options.clips)
        good = [lines[name](manifest, folder, options) for name in options.only]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
