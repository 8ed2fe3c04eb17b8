"""`mifuse-runtime`: recognise files, the microphone or what other programs send; show and check a bundle."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterable, Sequence

from mifuse_runtime.errors import MifuseError

EXAMPLE = """examples:
  mifuse-runtime demo
  mifuse-runtime predict bundle/ a.wav b.wav
  mifuse-runtime predict bundle/ recordings/ --jobs 0 --csv > emotions.csv
  mifuse-runtime predict bundle/ call.wav --timeline --channel each
  mifuse-runtime info bundle/
  mifuse-runtime verify bundle/
  mifuse-runtime listen bundle/ --speaker me.json
  mifuse-runtime serve bundle/ --port 8077
"""
# name -> module of `command`, help, example
COMMANDS = {
    "demo": ("demo", "Try the ready bundle, trained on synthetic speech, on its call.", "demo -o try/"),
    "predict": (
        "files",
        "Recognise audio: files, folders, patterns, raw samples.",
        "predict bundle/ a.wav b/",
    ),
    "info": ("card", "Show what a bundle is, and check its files.", "info bundle/"),
    "verify": ("card", "Check a bundle's files and run its models on test signals.", "verify bundle/"),
    "listen": (
        "microphone",
        "Recognise what the microphone records; Ctrl-C ends it.",
        "listen bundle/ --hop 1",
    ),
    "serve": (
        "server",
        "Answer other programs by HTTP and WebSocket; Ctrl-C ends it.",
        "serve bundle/ --port 8077",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 on failure and 2 on bad use."""
    from mifuse_runtime.command.output import complain

    arguments = _parsed(sys.argv[1:] if argv is None else argv)
    module = importlib.import_module(f"mifuse_runtime.command.{COMMANDS[arguments.run][0]}")
    try:
        failed: int = getattr(module, arguments.run)(arguments)
    except BrokenPipeError:  # the reader has seen enough (`| head`)
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        return 130
    except (MifuseError, OSError) as error:
        return complain(error)
    return failed


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; a wrong command or option leads to the nearest one."""
    parser = _parser()
    name = next((word for word in argv if not word.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        parser.error(
            f"no such command {name!r}{_nearest(name, COMMANDS) or ': there are ' + ', '.join(COMMANDS)}"
        )
    arguments, unknown = parser.parse_known_args(argv)
    command: argparse.ArgumentParser = vars(arguments).pop("parser")
    if unknown:
        options = re.findall(r"--[\w-]+", command.format_usage())
        command.error(f"no such argument {unknown[0]!r}{_nearest(unknown[0].partition('=')[0], options)}")
    return arguments


def _nearest(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    return "".join(f": did you mean {near!r}?" for near in get_close_matches(word, list(known), 1))


class _Version(argparse.Action):
    """Looks for the commit where it is asked for, not at every start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from mifuse_runtime.command.output import say
        from mifuse_runtime.version import described

        say(f"{parser.prog} {described('mifuse-runtime')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mifuse-runtime",
        description="Speech emotion recognition on the device.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show version and commit, and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (_, text, example) in COMMANDS.items():
        epilog = f"example: mifuse-runtime {example}"
        command = commands.add_parser(name, help=text, description=text, epilog=epilog)
        command.set_defaults(run=name, parser=command)
        if name == "demo":
            command.add_argument("-o", "--out", metavar="FOLDER", help="copy bundle and call into it, new")
            command.add_argument("--json", action="store_true", help="print JSON")
            continue
        command.add_argument("bundle", metavar="BUNDLE", help="folder made by `mifuse export`")
        if name != "info":
            command.add_argument("--threads", type=_whole, default=1, help="threads of the engine (1)")
        if name not in ("info", "verify"):
            engines = ("onnxruntime", "openvino", "auto")
            command.add_argument("--engine", choices=engines, default="onnxruntime", help="(onnxruntime)")
            command.add_argument(
                "--precision", choices=("fp32", "fp16", "int8"), help="(the bundle's default)"
            )
            command.add_argument("--labels", metavar="A,B,…", help="only these emotions (all)")
            command.add_argument(
                "--group", action="append", metavar="NAME=A+B", help="emotions as one: negative=angry+sad"
            )
        if name in ("predict", "listen"):
            command.add_argument(
                "--channel", default="mix", help="mix, left, right, a number from 0, or each (mix)"
            )
            command.add_argument("--speaker", metavar="FILE", help="who speaks: learnt from, kept in FILE")
        if name == "predict":
            _predict_options(command)
        elif name == "serve":
            _serve_options(command)
        else:
            command.add_argument("--json", action="store_true", help="print JSON, one object a line")
        if name == "verify":
            command.add_argument("--public-key", metavar="KEY.pub", help="check its owner's signature, too")
        if name == "listen":
            command.add_argument("--window", type=float, help="seconds looked at (the bundle's)")
            command.add_argument("--hop", type=float, default=0.5, help="seconds between results (0.5)")
            command.add_argument("--device", help="input device: number or part of its name (the system's)")
    return parser


def _predict_options(command: argparse.ArgumentParser) -> None:
    from mifuse_runtime.codings import ENCODINGS

    command.add_argument(
        "file",
        metavar="FILE",
        nargs="+",
        help="file, folder, 'pattern' or - (stdin: a file, or raw samples); docs/audio.md says what is read",
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, one object a line")
    form.add_argument("--csv", action="store_true", help="print CSV with a header")
    form.add_argument("--rttm", action="store_true", help="print segments as RTTM lines")
    form.add_argument("--vtt", action="store_true", help="print segments as WebVTT captions")
    command.add_argument("--timeline", action="store_true", help="print each segment, of short files, too")
    command.add_argument("--jobs", type=_whole, default=1, help="processes; 0 is one for each core (1)")
    command.add_argument("--rate", type=_whole, default=16_000, help="Hz of raw samples from stdin (16000)")
    command.add_argument("--channels", type=_whole, default=1, help="channels of raw samples (1)")
    command.add_argument(
        "--encoding", choices=tuple(ENCODINGS), default="int16", help="of raw samples (int16)"
    )


def _serve_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others need a token (127.0.0.1)"
    )
    command.add_argument("--port", type=_whole, default=8077, help="0 takes a free one (8077)")
    command.add_argument(
        "--token-file", metavar="FILE", help="file with the token; else MIFUSE_RUNTIME_TOKEN"
    )
    command.add_argument("--max-connections", type=_whole, default=64, help="open at a time (64)")
    command.add_argument("--max-mb", type=_whole, default=32, help="of one request's audio (32)")
    command.add_argument("--max-seconds", type=_whole, default=3600, help="that a stream may last (3600)")
    command.add_argument(
        "--idle-seconds", type=_whole, default=30, help="without data until it is closed (30)"
    )


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
