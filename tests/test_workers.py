"""A benchmark that is killed leaves no process behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import workers

ROOT = Path(__file__).parent.parent
PARENT = """
import sys
from benchmarks import workers
from tests.test_workers import spin

if __name__ == "__main__":
    if sys.argv[1] == "pool":
        with workers.pool(2) as pool:
            list(pool.map(spin, range(2)))
    else:
        workers.popen("tests.test_workers", ["spin"]).wait()
"""


def spin(number: int) -> None:
    """Never ends."""
    sys.stdout.write(f"spinning {number}\n")
    sys.stdout.flush()
    while True:
        pass


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this platform")
@pytest.mark.parametrize(("way", "count"), [("pool", 2), ("popen", 1)])
def test_workers_of_a_killed_benchmark_end(tmp_path: Path, way: str, count: int) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "parent.py"), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT) as parent:
        assert parent.stdout
        for _ in range(count):
            assert parent.stdout.readline().startswith(b"spinning")
        parent.kill()
        # The pipe has an end when the last process that could write to it has ended.
        assert parent.communicate(timeout=60) == (b"", None)
    assert parent.returncode == -signal.SIGKILL


def test_workers_are_prepared() -> None:
    with workers.pool(1, sys.setrecursionlimit, 4321) as pool:
        assert pool.submit(sys.getrecursionlimit).result(timeout=60) == 4321


if __name__ == "__main__":
    spin(0)
