"""`mifuse-runtime listen`: the microphone, a line or a live bar for each prediction."""

from __future__ import annotations

import argparse
import json
import queue
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime.audio import Channel, channel_index
from mifuse_runtime.command.loading import recognizer_of
from mifuse_runtime.command.output import complain, say, scored
from mifuse_runtime.command.recordings import EACH, chosen
from mifuse_runtime.command.speakers import known
from mifuse_runtime.decision import Prediction
from mifuse_runtime.errors import AudioError
from mifuse_runtime.shown import shown

SILENT_DEVICE = 5.0  # seconds without a sample after which the device is given up
BLOCK = 0.1  # seconds of audio taken at a time
WAITING = 100  # blocks that may wait for a slow machine; later ones are dropped
BAR = 30  # characters


def listen(arguments: argparse.Namespace) -> int:
    """Recognise what the microphone records until Ctrl-C."""
    recognizer = recognizer_of(arguments)
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, the PortAudio library is not
        raise AudioError(f"no microphone ({error}): pip install sounddevice, and PortAudio") from error
    device = int(arguments.device) if (arguments.device or "").isdigit() else arguments.device
    live = sys.stdout.isatty() and not arguments.json and arguments.channel != EACH
    try:
        card = sounddevice.query_devices(device, kind="input")
        rate = float(card["default_samplerate"])
        channels = chosen(arguments.channel, int(card.get("max_input_channels", 1)))
        if arguments.speaker and len(channels) > 1:
            raise AudioError("each channel is another voice, and --speaker is one: name its channel")
        with known(recognizer, arguments.speaker) as speaker:
            streams = [
                recognizer.stream(rate, arguments.window, arguments.hop, speaker=speaker, channel=channel)
                for channel in channels
            ]
            for block in _blocks(sounddevice, device, rate, _opened(channels)):
                found = recognizer.feed_all(streams, [block] * len(streams))
                for channel, predictions in zip(channels, found, strict=True):
                    for prediction in predictions:
                        _show(prediction, channel, as_json=arguments.json, live=live)
    except KeyboardInterrupt:
        return 0
    except (sounddevice.PortAudioError, ValueError) as error:  # ValueError: no device of that name
        raise AudioError(f"the microphone cannot be used ({error}): check the input device") from error
    finally:
        if live:
            sys.stdout.write("\n")
    return 0


def _opened(channels: Sequence[Channel]) -> int:
    """How many channels the device is asked for. A mix is one: the system makes it."""
    return max((channel_index(channel) or 0) + 1 for channel in channels)


def _blocks(
    sounddevice: object, device: int | str | None, rate: float, channels: int
) -> Iterator[NDArray[np.float32]]:
    """Blocks (n, channels) as the device delivers them.

    They come by a callback: a blocking read would hang for ever on a device that is unplugged.
    """
    waiting: queue.Queue[NDArray[np.float32]] = queue.Queue(WAITING)
    dropped = False

    def take(block: NDArray[np.float32], *_: object) -> None:
        nonlocal dropped
        try:
            waiting.put_nowait(block.copy())  # the buffer is the device's
        except queue.Full:
            if not dropped:
                complain("this machine is too slow for the microphone: audio is lost; use a longer --hop")
            dropped = True

    options = {"samplerate": rate, "channels": channels, "dtype": "float32", "blocksize": int(rate * BLOCK)}
    with sounddevice.InputStream(device=device, callback=take, **options):  # type: ignore[attr-defined]
        while True:
            yield _next(waiting)


def _next(waiting: queue.Queue[NDArray[np.float32]]) -> NDArray[np.float32]:
    try:
        return waiting.get(timeout=SILENT_DEVICE)
    except queue.Empty as error:
        text = f"the microphone gave no audio for {SILENT_DEVICE:g} s: check the input device"
        raise AudioError(text) from error


def _show(prediction: Prediction, channel: Channel, *, as_json: bool, live: bool) -> None:
    if as_json:
        say(json.dumps(asdict(prediction) | ({} if channel == "mix" else {"channel": channel})))
    elif live:
        filled = round(BAR * prediction.confidence)
        bar = "█" * filled + "·" * (BAR - filled)
        sys.stdout.write(
            f"\r\x1b[K{prediction.end:7.1f} s  {bar} {prediction.confidence:4.2f}  {shown(prediction.state)}"
        )
        sys.stdout.flush()
    else:
        where = "" if channel == "mix" else f"channel {channel}  "
        said = f"{prediction.state}; {scored(prediction)}"
        say(f"{prediction.end:7.1f} s  {where}{said}")
