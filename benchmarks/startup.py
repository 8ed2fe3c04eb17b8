"""Start-up of the runtime in a fresh process: import + load + first prediction, and peak memory.

    python -m benchmarks.startup bundle/

Prints the median of a few processes. The goal: under 0.25 s and 110 MB.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What an app does. Peak memory comes from /proc: ru_maxrss may count what this process held when it forked.
APP = """
import json, sys, time
begin = time.perf_counter()
import numpy
from mifuse_runtime import Recognizer
imported = time.perf_counter()
recognizer = Recognizer.load(sys.argv[1], precision=sys.argv[2] or None, engine=sys.argv[3])
loaded = time.perf_counter()
recognizer.predict(numpy.zeros(3 * recognizer.sample_rate, numpy.int16), gate=False)
done = time.perf_counter()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024 / 1e6
cpu = time.process_time()
print(json.dumps([imported - begin, loaded - imported, done - loaded, done - begin, cpu, peak]))
"""


def measure(bundle: Path, precision: str | None, engine: str, runs: int) -> dict[str, float]:
    """Medians over `runs` processes: seconds (`best_s`: the fastest whole) and peak memory in MB."""
    command = [sys.executable, "-c", APP, str(bundle.resolve()), precision or "", engine]
    rows = [
        json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT / "runtime").stdout)
        for _ in range(runs)
    ]
    names = ("import_s", "load_s", "predict_s", "total_s", "cpu_s", "peak_mb")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    medians = {name: statistics.median(column) for name, column in columns.items()}
    return {**medians, "best_s": min(columns["total_s"])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision", choices=("fp32", "int8"), help="the bundle's default if not given")
    parser.add_argument("--engine", default="onnxruntime", choices=("onnxruntime", "openvino"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.bundle, arguments.precision, arguments.engine, arguments.runs)
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, median of {arguments.runs} processes")
    print(
        "import {import_s:.3f} s + load {load_s:.3f} s + first prediction {predict_s:.3f} s".format(**found)
    )
    print("= {total_s:.3f} s, at best {best_s:.3f} (goal 0.25); CPU {cpu_s:.3f} s".format(**found))
    print("peak memory {peak_mb:.0f} MB (goal 110)".format(**found))


if __name__ == "__main__":
    main()
