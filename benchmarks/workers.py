"""Processes of a benchmark. They end when it ends, whatever ends it: nobody sends a signal after kill -9.

python -m benchmarks.workers MODULE ARGUMENT…     runs a module until standard input is closed
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any


def pool(jobs: int, initializer: Callable[..., object] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """Worker processes. Spawned: a forked child of a process with threads may hang."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, _start, (initializer, arguments))


def _start(initializer: Callable[..., object] | None, arguments: Sequence[Any]) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        _exit_after(lambda: wait([parent.sentinel]))
    if initializer is not None:
        initializer(*arguments)


def popen(module: str, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """`python -m MODULE ARGUMENT…` in a process of its own; options are those of `subprocess.Popen`."""
    command = [sys.executable, "-m", "benchmarks.workers", module, *arguments]
    # Every platform closes the pipe of a dead parent; PR_SET_PDEATHSIG is of Linux alone.
    return subprocess.Popen(command, stdin=subprocess.PIPE, **options)


def _exit_after(event: Callable[[], object]) -> None:
    def watch() -> None:
        event()
        os._exit(1)  # no cleaning up: the main thread may be in the middle of anything

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _exit_after(lambda: os.read(0, 1))  # not sys.stdin, whose lock the thread would hold at the end
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
