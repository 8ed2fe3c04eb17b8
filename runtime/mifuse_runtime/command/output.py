"""What the command writes: results to stdout, complaints and progress to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from mifuse_runtime.decision import Prediction
from mifuse_runtime.shown import shown

T = TypeVar("T")


def say(line: str) -> None:
    """Print a result."""
    sys.stdout.write(shown(line) + "\n")
    sys.stdout.flush()


def complain(error: object) -> int:
    """Print an error in one line; the exit code that goes with it."""
    sys.stderr.write(shown(f"mifuse-runtime: error: {error}") + "\n")
    return 1


def warn(text: str) -> None:
    """Print what the user should know, in one line."""
    sys.stderr.write(shown(f"mifuse-runtime: {text}") + "\n")


def scored(found: Prediction) -> str:
    """A label with the probabilities of all, and the dimensions."""
    label, scores = found.label, found.scores
    all_of_them = ", ".join(f"{name} {share:.2f}" for name, share in scores.items())
    said = f"{label} {scores[label]:.2f} ({all_of_them})" if label in scores else label
    return "; ".join([said, *(f"{name} {value:.2f}" for name, value in found.dimensions.items())])


def progress(results: Iterable[T], total: int) -> Iterator[T]:
    """The results, counted on stderr where that is a terminal and there are many."""
    counted = sys.stderr.isatty() and total > 1
    last = 0.0
    for number, result in enumerate(results, 1):
        if counted:
            sys.stderr.write("\r\x1b[K")  # the results scroll above the count
        yield result
        now = time.monotonic()
        if counted and (now - last > 0.1 or number == total):
            last = now
            sys.stderr.write(f"\r{number}/{total} files" + "\n" * (number == total))
            sys.stderr.flush()
