"""`mifuse-runtime predict`: files, folders, patterns and raw samples from stdin, over several cores."""

from __future__ import annotations

import argparse
import glob
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from mifuse_runtime.audio import channel_index
from mifuse_runtime.command.cores import usable_cores
from mifuse_runtime.command.loading import recognizer_of
from mifuse_runtime.command.output import complain, progress, warn
from mifuse_runtime.command.recordings import EACH, Found, Raw, recordings
from mifuse_runtime.command.speakers import known
from mifuse_runtime.command.tracks import FORMS, heading, write
from mifuse_runtime.errors import AudioError, MifuseError
from mifuse_runtime.files import FFMPEG_SUFFIXES, SUFFIXES, named_file
from mifuse_runtime.recognizer import Recognizer
from mifuse_runtime.speaker import Speaker

ADVICE = "convert them to WAV or FLAC, or install ffmpeg"
FEWEST, MOST = 8, 32  # files that are worth a process; files handed to one together

Answers = list[Found | str]  # what was found in a file, and what is wrong with it

_worker: tuple[Recognizer, argparse.Namespace] | None = None  # of this process, when it is one of --jobs


def predict(arguments: argparse.Namespace) -> int:
    """Recognise everything that is named; 1 if something could not be."""
    paths, failed = _paths(arguments.file)
    recognizer = recognizer_of(arguments)
    jobs = min(arguments.jobs or usable_cores(), -(-len(paths) // FEWEST))
    if arguments.speaker and jobs > 1:
        raise MifuseError("--speaker learns from one file after the other: leave out --jobs")
    if arguments.speaker and arguments.channel == EACH:
        raise MifuseError("each channel is another voice, and --speaker is one: name its channel")
    channel_index("mix" if arguments.channel == EACH else arguments.channel)  # refuse what is none, once
    form = next((form for form in FORMS if getattr(arguments, form)), None)
    whole = arguments.timeline or form in ("rttm", "vtt")
    heading(form, recognizer)
    with known(recognizer, arguments.speaker) as speaker:
        here = (_answer(recognizer, path, arguments, speaker) for path in paths)
        answers = _in_processes(arguments, paths, jobs) if jobs > 1 else here
        for found in progress(answers, len(paths)):
            for each in found:
                if isinstance(each, str):
                    failed = complain(each)
                else:
                    write(each, form, recognizer, whole=whole)
    return failed


def _paths(names: Sequence[str]) -> tuple[list[str], int]:
    """The files meant by files, folders, patterns and "-", and 1 if a name means none."""
    paths: list[str] = []
    failed = 0
    for name in names:
        if name != "-" and Path(name).is_dir():
            found, other = _inside(Path(name))
            if other:
                counts = ", ".join(f"{what} {count}" for what, count in other.most_common())
                warn(f"{name}: left out: {counts} ({ADVICE})")
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


def _inside(folder: Path) -> tuple[list[str], Counter[str]]:
    """The audio files below a folder, and how many others it holds, by suffix."""
    found, other = [], Counter[str]()
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if path.name.startswith("."):
            other["hidden"] += 1
        elif path.suffix.lower() in SUFFIXES or (path.suffix.lower() in FFMPEG_SUFFIXES and named_file(path)):
            found.append(str(path))
        else:
            other[path.suffix.lower() or "no suffix"] += 1
    return found, other


def _answer(
    recognizer: Recognizer, path: str, arguments: argparse.Namespace, speaker: Speaker | None = None
) -> Answers:
    """What was found in a file; as its last, what is wrong with it."""
    raw = Raw(arguments.rate, arguments.channels, arguments.encoding)
    whole = arguments.timeline or arguments.rttm or arguments.vtt
    answers: Answers = []
    try:
        answers += recordings(recognizer, path, arguments.channel, raw, whole=whole, speaker=speaker)
    except AudioError as error:
        answers.append(str(error))
    return answers


def _in_processes(arguments: argparse.Namespace, paths: Sequence[str], jobs: int) -> Iterator[Answers]:
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
    _worker = recognizer_of(arguments), arguments


def _work(path: str) -> Answers:
    assert _worker is not None
    return _answer(_worker[0], path, _worker[1])
