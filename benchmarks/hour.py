"""One hour of a call: CPU seconds and peak memory of its timeline on one core, at each sample rate.

    python -m benchmarks.hour [bundle/] [--rates 8000 16000 44100 48000] [--minutes 60] [--json FILE]

The call is synthetic: turns of a voice of harmonics with pauses, half of the time speech, as PCM of 16 bits.
Each rate has a process of its own, whose CPU time is counted from opening the file to the last segment;
loading Python, NumPy, ONNX Runtime and the bundle is another column. Without a bundle, a student `s` with
random weights is exported to int8: weights do not matter for time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np

from benchmarks.provenance import provenance
from benchmarks.streaming import ROOT, make_bundle
from mifuse.exporting.bench import machine, voice
from mifuse_runtime.audio import Floats

SECONDS, MEGABYTES = 2.0, 150.0  # goals of an hour: CPU time, and peak memory of the process
TURN, PAUSE = 3.5, 3.0  # seconds: one side of a call

# Peak memory comes from /proc: ru_maxrss may count what this process held when it forked.
TIMELINE = """
import json, sys, time
from mifuse_runtime import Recognizer
from mifuse_runtime.command.recordings import recordings
recognizer = Recognizer.load(sys.argv[1])
begin = time.process_time()
[found] = recordings(recognizer, sys.argv[2], "mix")
spent = time.process_time() - begin
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
answer = found.answer
print(json.dumps({
    "minutes": answer.duration / 60, "segments": len(answer.segments), "speech_minutes": answer.speech / 60,
    "loading_s": begin, "timeline_s": spent, "peak_mb": int(status["VmHWM"].split()[0]) / 1000,
}))
"""


def write_call(path: Path, rate: int, minutes: float) -> None:
    """A WAV of turns and pauses; each minute of it is the same."""
    turns: list[Floats] = []
    while sum(map(len, turns)) < 60 * rate:
        turns += [voice(TURN, rate), np.zeros(int(PAUSE * rate), np.float32)]
    noise = np.random.default_rng(0).standard_normal(60 * rate) * 1e-3
    minute = np.round((np.concatenate(turns)[: 60 * rate] + noise) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        for at in np.arange(0, minutes, 1.0):
            file.writeframes(minute[: 2 * round(min(1.0, minutes - at) * 60 * rate)])


def measure(bundle: Path, rate: int, minutes: float, runs: int = 3) -> dict[str, float]:
    """The fastest of some processes: other work on the machine only adds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        call = Path(folder, "call.wav")
        write_call(call, rate, minutes)
        command = [sys.executable, "-c", TIMELINE, str(bundle.resolve()), str(call)]
        found = [
            json.loads(
                subprocess.run(
                    command, check=True, capture_output=True, cwd=ROOT / "runtime", env=environment
                ).stdout
            )
            for _ in range(runs)
        ]
    return {"rate": rate, **min(found, key=lambda run: run["timeline_s"])}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--rates", type=int, nargs="+", default=[8000, 16_000, 44_100, 48_000], help="Hz")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the call (60)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or make_bundle(Path(folder))
        rows = [measure(bundle, rate, options.minutes) for rate in options.rates]
    found = machine()
    print(f"{options.minutes:g} minutes of a call, one core of {found.cpu}, {found.system}")
    print(f"| Hz | segments | speech | loading | timeline (≤ {SECONDS:g} s) | peak (≤ {MEGABYTES:g} MB) |")
    print("| --: | --: | --: | --: | --: | --: |")
    for row in rows:
        speech = f"{row['speech_minutes']:.0f} min"
        print(
            f"| {row['rate']} | {row['segments']} | {speech} | {row['loading_s']:.2f} s "
            f"| {row['timeline_s']:.2f} s | {row['peak_mb']:.0f} MB |"
        )
    if options.json:
        options.json.write_text(json.dumps({**provenance(), "machine": found.cpu, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
