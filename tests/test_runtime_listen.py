"""`mifuse-runtime listen`, with a stand-in for the microphone."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mifuse_runtime import Recognizer
from mifuse_runtime.__main__ import main
from tests.bundles import make_bundle, speech


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


class Microphone:
    """Stands in for sounddevice's input stream: 4 s of voice in odd blocks, then nothing more."""

    def __init__(self, samplerate: float, channels: int, dtype: str, **options: object) -> None:
        assert (channels, dtype) == (1, "float32")
        self.samples = speech(4, rate=int(samplerate))[:, None]
        self.callback = options["callback"]
        self.thread = threading.Thread(target=self.deliver)

    def __enter__(self) -> Microphone:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.thread.join()

    def deliver(self) -> None:
        for block in np.array_split(self.samples, 37):
            buffer = block.copy()
            self.callback(buffer, len(buffer), None, None)
            buffer[:] = np.nan  # the device uses its buffer again
            time.sleep(0.002)


@pytest.fixture
def microphone(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    device = SimpleNamespace(
        PortAudioError=RuntimeError,
        InputStream=Microphone,
        query_devices=lambda device, kind: {"default_samplerate": 48_000.0},
    )
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    return device


def test_listen_until_ctrl_c(
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    microphone: SimpleNamespace,
) -> None:
    from mifuse_runtime.command import microphone as module

    def ctrl_c_when_quiet(waiting: queue.Queue[np.ndarray]) -> np.ndarray:
        try:
            return waiting.get(timeout=0.5)
        except queue.Empty:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(module, "_next", ctrl_c_when_quiet)
    assert main(["listen", str(bundle), "--hop", "0.25", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # What the resampler needs of the future never comes: no 4.0.
    assert [row["end"] for row in found] == [3, 3.25, 3.5, 3.75]
    wanted = Recognizer.load(bundle).stream(48_000, hop=0.25).feed(speech(4, rate=48_000))
    assert [row["state"] for row in found] == [p.state for p in wanted]


def test_listen_to_channels(
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    microphone: SimpleNamespace,
) -> None:
    from mifuse_runtime.command import microphone as module

    both = np.stack([speech(4, 48_000), np.zeros(4 * 48_000, np.float32)], axis=1)
    asked: list[int] = []

    def blocks(_: object, __: object, rate: float, channels: int) -> Iterator[np.ndarray]:
        asked.append(channels)
        yield from np.array_split(both[:, :channels], 40)

    monkeypatch.setattr(module, "_blocks", blocks)
    card = {"default_samplerate": 48_000.0, "max_input_channels": 2}
    microphone.query_devices = lambda device, kind: card
    assert main(["listen", str(bundle), "--json", "--channel", "each"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["channel"], row["end"], row["state"] == "no speech") for row in found] == [
        (channel, end, channel == 1) for end in (3.0, 3.5) for channel in (0, 1)
    ]
    assert main(["listen", str(bundle), "--channel", "right"]) == 0
    assert "    3.0 s  channel right  no speech" in capsys.readouterr().out
    assert main(["listen", str(bundle)]) == 0 and asked == [2, 2, 1]
    for options, said in (
        (["--channel", "2"], "there is no channel 2: there are 2"),
        (["--channel", "both"], "channel 'both': use mix, left, right or a number from 0"),
        (["--channel", "each", "--speaker", "me.json"], "--speaker is one: name its channel"),
    ):
        assert main(["listen", str(bundle), *options]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_device_that_stops_does_not_hang(
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    microphone: SimpleNamespace,
    terminal: bool,
) -> None:
    from mifuse_runtime.command import microphone as module

    monkeypatch.setattr(module, "SILENT_DEVICE", 0.2)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert main(["listen", str(bundle), "--device", "2"]) == 1
    out, err = capsys.readouterr()
    assert err == "mifuse-runtime: error: the microphone gave no audio for 0.2 s: check the input device\n"
    assert out.count("\r\x1b[K") == (2 if terminal else 0)
    assert out.count("█") >= 2 or not terminal
    assert "    3.5 s  " in out


def test_listen_without_a_microphone(
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    microphone: SimpleNamespace,
) -> None:
    def absent(device: object, kind: str) -> None:
        raise ValueError("no input device matching 'x'")

    microphone.query_devices = absent
    assert main(["listen", str(bundle)]) == 1
    assert "check the input device" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["listen", str(bundle)]) == 1
    assert "pip install sounddevice" in capsys.readouterr().err
