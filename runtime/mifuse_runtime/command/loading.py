"""The recogniser that the command's options mean."""

from __future__ import annotations

import argparse
import multiprocessing

from mifuse_runtime.command.output import warn
from mifuse_runtime.recognizer import Recognizer

DEMO = "a demo, trained on synthetic speech: its answers say nothing about real voices"


def recognizer_of(arguments: argparse.Namespace) -> Recognizer:
    """Loaded, and asked about what `--labels` and `--group` say.

    Raises:
        MifuseError: as of `Recognizer.load`, `subset` and `grouped`.
    """
    loaded = Recognizer.load(arguments.bundle, arguments.engine, arguments.threads, arguments.precision)
    if loaded.bundle.demo and not multiprocessing.parent_process():  # once, not for each of --jobs
        warn(f"{arguments.bundle} is {DEMO}")
    if arguments.labels:
        loaded = loaded.subset([name.strip() for name in arguments.labels.split(",")])
    if arguments.group:
        from mifuse_runtime.groups import parse_groups

        loaded = loaded.grouped(parse_groups(arguments.group))
    return loaded
