"""`mifuse-runtime demo`: the ready bundle, trained on synthetic speech, on the call that comes with it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import time
from pathlib import Path

from mifuse_runtime.command.loading import DEMO
from mifuse_runtime.command.output import say
from mifuse_runtime.command.recordings import as_dict, recordings
from mifuse_runtime.command.tracks import write
from mifuse_runtime.errors import MifuseError
from mifuse_runtime.recognizer import Recognizer

PACKAGE = "mifuse_demo"  # a distribution of its own: this one stays light
BUNDLE, CALL = "bundle", "call.wav"


def demo(arguments: argparse.Namespace) -> int:
    """Recognise the call, and say how to go on; with `--out` also copy both into a folder."""
    folder = ready()
    if arguments.out:
        folder = _copied(folder, Path(arguments.out))
    recognizer = Recognizer.load(folder / BUNDLE)
    begin = time.perf_counter()
    (found,) = recordings(recognizer, folder / CALL, "mix", whole=True)
    spent = time.perf_counter() - begin
    if arguments.json:
        answer = as_dict(found, recognizer)
        say(json.dumps({"bundle": str(folder / BUNDLE), "path": found.path, **answer}))
        return 0
    write(found, None, recognizer, whole=True)
    say(f"{1000 * spent:.0f} ms, decoding and the gate of speech included. The bundle is {DEMO}.")
    say(f"Yours: mifuse-runtime predict {folder / BUNDLE} your.wav --timeline")
    return 0


def ready() -> Path:
    """The folder that holds bundle and call.

    Raises:
        MifuseError: they are not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    installed = [Path(place) for place in (found and found.submodule_search_locations) or ()]
    clone = Path(__file__).resolve().parents[2] / "demo" / PACKAGE
    for folder in (*installed, clone):
        if (folder / BUNDLE / "bundle.json").is_file():
            return folder
    raise MifuseError("the demo's bundle is not installed: `pip install ./runtime/demo` in a clone of mifuse")


def _copied(folder: Path, out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MifuseError(f"{out} exists and is not empty: choose another folder")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    try:
        shutil.copytree(folder, part, ignore=shutil.ignore_patterns("__init__.py", "__pycache__"))
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out
