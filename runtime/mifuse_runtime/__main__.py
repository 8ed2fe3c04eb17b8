"""`mifuse-runtime`: recognise files or the microphone with a bundle, or show what the bundle is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mifuse_runtime import __version__
from mifuse_runtime.errors import AudioError, MifuseError

EXAMPLE = """examples:
  mifuse-runtime predict bundle/ a.wav b.wav
  mifuse-runtime predict bundle/ recordings/*.wav --json > emotions.jsonl
  mifuse-runtime info bundle/
  mifuse-runtime listen bundle/
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 on failure and 2 on bad use."""
    arguments = _parser().parse_args(argv)
    try:
        failed: int = arguments.run(arguments)
    except BrokenPipeError:  # the reader has seen enough (`| head`)
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        return 130
    except (MifuseError, OSError) as error:
        return _complain(error)
    return failed


def _predict(arguments: argparse.Namespace) -> int:
    from mifuse_runtime.audio import read_audio
    from mifuse_runtime.recognizer import Recognizer

    recognizer = Recognizer.load(arguments.bundle, arguments.engine, arguments.threads, arguments.precision)
    failed = 0
    for path in arguments.file:
        try:
            prediction = recognizer.predict(read_audio(path, recognizer.sample_rate))
        except AudioError as error:
            failed = _complain(error)
            continue
        if arguments.json:
            _say(json.dumps({"path": str(path), **dataclasses.asdict(prediction)}))
        else:
            _say(f"{path}: {_line(prediction.label, prediction.scores)}")
    return failed


def _info(arguments: argparse.Namespace) -> int:
    from mifuse_runtime import bundle as bundles

    bundle = bundles.load(arguments.bundle)
    if arguments.json:
        _say(json.dumps(json.loads(bundle.to_json())))
        return 0
    _say(f"{arguments.bundle}: {', '.join(bundle.labels)}; all {len(bundle.files)} files are as exported")
    _say(f"  input     {bundle.sample_rate} Hz mono, streams look at {bundle.window:g} s")
    for precision, models in bundle.models.items():
        for engine, name in models.items():
            size = (Path(arguments.bundle) / name).stat().st_size
            default = " (default)" if precision == bundle.default else ""
            _say(f"  model     {precision} for {engine}: {name}, {size / 1000:.0f} kB{default}")
    for part in ("quality", "calibration", "provenance"):
        for key, value in _flat(getattr(bundle, part)):
            _say(f"  {part:9} {key}: {value}")
    return 0


def _listen(arguments: argparse.Namespace) -> int:
    from mifuse_runtime.recognizer import Recognizer

    recognizer = Recognizer.load(arguments.bundle, arguments.engine, arguments.threads, arguments.precision)
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, the PortAudio library is not
        raise AudioError(f"no microphone ({error}): pip install sounddevice, and PortAudio") from error
    try:
        rate = float(sounddevice.query_devices(kind="input")["default_samplerate"])
        stream = recognizer.stream(rate, arguments.window, arguments.hop)
        with sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32") as microphone:
            while True:
                for heard in stream.feed(microphone.read(int(rate * 0.1))[0]):
                    if arguments.json:
                        _say(json.dumps(dataclasses.asdict(heard)))
                    else:
                        _say(f"{heard.end:7.1f} s  {_line(heard.label, heard.scores)}")
    except KeyboardInterrupt:
        return 0
    except sounddevice.PortAudioError as error:
        raise AudioError(f"the microphone cannot be used ({error}): check the input device") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mifuse-runtime",
        description="Speech emotion recognition on the device.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mifuse-runtime {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text, example in (
        ("predict", _predict, "Recognise the emotion of audio files.", "predict bundle/ a.wav b.wav --json"),
        ("info", _info, "Show what a bundle is, and check its files.", "info bundle/"),
        ("listen", _listen, "Recognise what the microphone hears; Ctrl-C ends it.", "listen bundle/ --hop 1"),
    ):
        epilog = f"example: mifuse-runtime {example}"
        command = commands.add_parser(name, help=text, description=text, epilog=epilog)
        command.set_defaults(run=run)
        command.add_argument("bundle", metavar="BUNDLE", help="folder made by `mifuse export`")
        command.add_argument("--json", action="store_true", help="print JSON, one object a line")
        if name == "info":
            continue
        command.add_argument("--engine", choices=("onnxruntime", "openvino"), default="onnxruntime")
        command.add_argument("--threads", type=int, default=1, help="threads of the engine (1)")
        command.add_argument(
            "--precision", choices=("fp32", "int8"), help="the bundle's default if not given"
        )
        if name == "predict":
            command.add_argument("file", metavar="FILE", nargs="+", help="WAV; others need soundfile")
        else:
            command.add_argument("--window", type=float, help="seconds looked at (the bundle's)")
            command.add_argument("--hop", type=float, default=0.5, help="seconds between results (0.5)")
    return parser


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _line(label: str, scores: Mapping[str, float]) -> str:
    return f"{label} {scores[label]:.2f} ({', '.join(f'{name} {p:.2f}' for name, p in scores.items())})"


def _say(line: str) -> None:
    sys.stdout.write(_plain(line) + "\n")
    sys.stdout.flush()


def _complain(error: Exception) -> int:
    sys.stderr.write(_plain(f"mifuse-runtime: error: {error}") + "\n")
    return 1


def _plain(line: str) -> str:
    # File names and bundles come from anywhere: no control characters, no broken Unicode on the terminal.
    return "".join(c if c.isprintable() else "?" for c in line)


if __name__ == "__main__":
    sys.exit(main())
