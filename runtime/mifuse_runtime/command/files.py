"""`mifuse-runtime predict`: files, folders, patterns and raw samples from stdin, over several cores."""

from __future__ import annotations

import argparse
import csv
import glob
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mifuse_runtime.audio import Floats, checked, mono
from mifuse_runtime.codings import pcm
from mifuse_runtime.command.output import complain, progress, say, scored
from mifuse_runtime.command.speakers import known
from mifuse_runtime.decision import Prediction
from mifuse_runtime.errors import AudioError, MifuseError
from mifuse_runtime.files import read_audio
from mifuse_runtime.recognizer import Recognizer
from mifuse_runtime.resample import PIECE, Resampler
from mifuse_runtime.shown import quoted
from mifuse_runtime.speaker import Speaker

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".w64", ".caf", ".au")
FEWEST, MOST = 8, 32  # files that are worth a process; files handed to one together

Answer = tuple[str, Prediction | str]  # path, and what was found or what is wrong

_worker: Recognizer | None = None  # of this process, when it is one of --jobs


def predict(arguments: argparse.Namespace) -> int:
    """Recognise everything that is named; 1 if something could not be."""
    paths, failed = _paths(arguments.file)
    recognizer = _load(arguments)
    jobs = min(arguments.jobs or os.cpu_count() or 1, -(-len(paths) // FEWEST))
    if arguments.speaker and jobs > 1:
        raise MifuseError("--speaker learns from one file after the other: leave out --jobs")
    with known(recognizer, arguments.speaker) as speaker:
        here = (_answer(recognizer, path, arguments, speaker) for path in paths)
        answers = _in_processes(arguments, paths, jobs) if jobs > 1 else here
        return _tell(arguments, recognizer.labels, progress(answers, len(paths))) or failed


def _tell(arguments: argparse.Namespace, labels: Sequence[str], answers: Iterable[Answer]) -> int:
    """Print the answers; 1 if something could not be recognised."""
    failed = 0
    if arguments.csv:
        say(_csv_line(("path", "label", "state", "confidence", "start", "end", *labels)))
    for path, found in answers:
        if isinstance(found, str):
            failed = complain(found)
        elif arguments.json:
            say(json.dumps({"path": path, **asdict(found)}))
        elif arguments.csv:
            numbers = (found.confidence, found.start, found.end, *found.scores.values())
            say(_csv_line((path, found.label, found.state, *(f"{number:.6g}" for number in numbers))))
        else:
            say(f"{path}: {scored(found.label, found.scores)}")
    return failed


def _load(arguments: argparse.Namespace) -> Recognizer:
    return Recognizer.load(arguments.bundle, arguments.engine, arguments.threads, arguments.precision)


def _paths(names: Sequence[str]) -> tuple[list[str], int]:
    """The files meant by files, folders, patterns and "-", and 1 if a name means none."""
    paths: list[str] = []
    failed = 0
    for name in names:
        if name != "-" and Path(name).is_dir():
            inside = sorted(path for path in Path(name).rglob("*") if path.suffix.lower() in SUFFIXES)
            found = [str(path) for path in inside if path.is_file()]
        elif name != "-" and glob.has_magic(name) and not Path(name).exists():
            found = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())  # noqa: PTH207, may be absolute
        else:
            found = [name]
        if not found:
            failed = complain(
                f"{name}: no audio files: name files, a folder or a pattern such as 'a/**/*.wav'"
            )
        paths += found
    return paths, failed


def _answer(
    recognizer: Recognizer,
    path: str,
    arguments: argparse.Namespace | None = None,
    speaker: Speaker | None = None,
) -> Answer:
    rate = recognizer.sample_rate
    try:
        samples = _stdin(arguments, rate) if path == "-" and arguments else read_audio(path, rate)
        return path, recognizer.predict(samples, speaker=speaker)
    except AudioError as error:
        return path, str(error)


def _stdin(arguments: argparse.Namespace, sample_rate: int) -> Floats:
    """Raw samples from stdin to its end, in the form that the options name."""
    resampler = Resampler(arguments.rate, sample_rate)
    pieces = []
    try:
        # 4 bytes a channel hold whole frames of every encoding: only the last piece can be cut.
        while raw := sys.stdin.buffer.read(4 * PIECE * max(1, arguments.channels)):
            pieces.append(resampler.feed(checked(mono(pcm(raw, arguments.encoding, arguments.channels)))))
        return checked(np.concatenate([*pieces, resampler.flush()]))
    except AudioError as error:
        raise AudioError(f"stdin: {error}") from error


def _in_processes(arguments: argparse.Namespace, paths: Sequence[str], jobs: int) -> Iterator[Answer]:
    """The answers in the order of the paths, from `jobs` processes with a recogniser each."""
    if "-" in paths:
        raise MifuseError("stdin cannot be shared by processes: leave out --jobs, or '-'")
    context = multiprocessing.get_context("spawn")  # a fork would copy the engine's locks as they are
    with ProcessPoolExecutor(jobs, context, _start_worker, (arguments,)) as pool:
        try:
            yield from pool.map(_work, paths, chunksize=min(MOST, -(-len(paths) // (4 * jobs))))
        except BrokenProcessPool as error:
            raise MifuseError("a process of --jobs was ended from outside: use fewer --jobs") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(arguments: argparse.Namespace) -> None:
    global _worker  # noqa: PLW0603, how a pool's processes keep what they load
    _worker = _load(arguments)


def _work(path: str) -> Answer:
    assert _worker is not None
    return _answer(_worker, path)


def _csv_line(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([quoted(str(value)) for value in values])
    return text.getvalue()
