"""`mifuse-runtime`: output, exit codes, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mifuse_runtime
from mifuse_runtime.__main__ import main
from tests.bundles import RATE, expected, make_bundle, tone


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def write(path: Path, samples: np.ndarray) -> str:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return str(path)


def test_predict(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "a.wav", tone(1)), write(tmp_path / "b.wav", tone(2, 3000))
    assert main(["predict", str(bundle), first, second, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == [first, second]
    assert list(lines[1]["scores"].values()) == pytest.approx(expected(tone(2, 3000)), abs=1e-3)
    assert main(["predict", str(bundle), first]) == 0
    assert capsys.readouterr().out.startswith(f"{first}: {lines[0]['label']} 0.")


def test_bad_files_do_not_stop_the_others(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, absent = write(tmp_path / "a.wav", tone(1)), str(tmp_path / "absent.wav")
    assert main(["predict", str(bundle), absent, good]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == len(err.splitlines()) == 1
    assert err.startswith(f"mifuse-runtime: error: {absent}: ")


def test_bundle_that_is_changed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    for command in ("info", "listen"):
        assert main([command, str(bundle)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_info(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(bundle)]) == 0
    out = capsys.readouterr().out
    for word in (
        "angry, happy, neutral, sad",
        "16000 Hz",
        "fp32 for onnxruntime",
        "fp32.ua: 50.0",
        "hand-made",
    ):
        assert word in out
    assert main(["info", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == 1


@pytest.mark.parametrize("arguments", [[], ["dance"], ["predict"], ["predict", "b", "f", "--engine", "x"]])
def test_bad_use_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("command", ["predict", "info", "listen"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "-h"])
    assert caught.value.code == 0
    assert f"mifuse-runtime {command} bundle/" in capsys.readouterr().out


class Microphone:
    """Stands in for sounddevice's input stream: 4 s of a tone, then Ctrl-C."""

    def __init__(self, samplerate: float, channels: int, dtype: str) -> None:
        assert (channels, dtype) == (1, "float32")
        self.left = tone(4, rate=int(samplerate))[:, None]

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, count: int) -> tuple[np.ndarray, bool]:
        if not self.left.size:
            raise KeyboardInterrupt
        chunk, self.left = self.left[:count], self.left[count:]
        return chunk, False


def test_listen(bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(
        PortAudioError=RuntimeError,
        InputStream=Microphone,
        query_devices=lambda kind: {"default_samplerate": 48_000.0},
    )
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    assert main(["listen", str(bundle), "--hop", "0.25", "--json"]) == 0
    ends = [json.loads(line)["end"] for line in capsys.readouterr().out.splitlines()]
    assert ends == [3, 3.25, 3.5, 3.75]  # what the resampler needs of the future never comes: no 4.0


def test_listen_without_a_microphone(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["listen", str(bundle)]) == 1
    assert "pip install sounddevice" in capsys.readouterr().err

    def absent(kind: str) -> None:
        raise RuntimeError("no input device")

    monkeypatch.setitem(
        sys.modules, "sounddevice", SimpleNamespace(PortAudioError=RuntimeError, query_devices=absent)
    )
    assert main(["listen", str(bundle)]) == 1
    assert "check the input device" in capsys.readouterr().err


def test_as_a_process(bundle: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1))
    root = Path(mifuse_runtime.__file__).parents[1]
    command = [sys.executable, "-m", "mifuse_runtime", "predict", str(bundle), *[path] * 3]
    done = subprocess.run(command, check=True, cwd=root, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == ""
