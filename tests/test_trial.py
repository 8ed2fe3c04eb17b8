"""`mifuse doctor --encoder`: what a checkpoint is good for, on tiny random ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mifuse.cli import main
from mifuse.models.trial import Use
from tests.test_classifier import save_hub
from tests.test_hub import save_encoder


def doctor(*words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *words])


def checks(folder: Path, code: int = 0) -> dict[str, dict[str, str]]:
    done = doctor("--encoder", f"hf:{folder}", "--clips", "1000", "--json")
    assert done.exit_code == code, done.output
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


@pytest.mark.parametrize(("family", "layers"), [("WavLM", 2), ("Whisper", 2)])
def test_an_encoder(tmp_path: Path, family: str, layers: int) -> None:
    found = checks(save_encoder(tmp_path, family))
    assert found["as encoder"]["status"] == "ok"
    assert found["as encoder"]["detail"].startswith(
        f"{family.lower()}, 0.0 M parameters; 1,000 clips of 4 s take"
    )
    # 2 bytes a value of 16 in 2 layers, 1,000 times
    assert found["as encoder"]["detail"].endswith(f"{layers} layers x 16 are kept, 0 MB")
    assert found["as encoder"]["run"] == f"mifuse train MANIFEST --encoder hf:{tmp_path} -o source/"
    assert found["as classifier"]["status"] == "absent"
    assert "no trained head" in found["as classifier"]["detail"]


def test_a_classifier(tmp_path: Path) -> None:
    found = checks(save_hub(tmp_path, names=("LABEL_0", "LABEL_1")))
    assert {check["status"] for check in found.values()} == {"ok"}
    assert "says LABEL_0, LABEL_1; a draw: 1,000 clips of 4 s take" in found["as classifier"]["detail"]


def test_what_is_good_for_nothing(tmp_path: Path) -> None:
    found = checks(save_hub(tmp_path, rate=8_000), code=1)
    assert {check["status"] for check in found.values()} == {"broken"}
    assert all("takes audio of 8000 Hz" in check["detail"] for check in found.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoder", "wavlm"], "write hf:wavlm"),
        (["--encoder", "hf:x", "--fix"], "--fix is of the installation"),
    ],
)
def test_bad_use(words: list[str], message: str) -> None:
    done = doctor(*words)
    assert (done.exit_code, message in done.stderr) == (2, True)


def test_time_grows_with_clips_and_their_length() -> None:
    use = Use(seconds=(0.3, 0.5, 0.9), layers=7, width=512)  # 0.1 s, and 0.1 s a second
    assert use.hours(3600, 4.0) == pytest.approx(0.5)
    assert use.hours(7200, 10.0) == pytest.approx(2.2)
    assert (
        Use(seconds=(0.2, 0.2, 0.1)).hours(3600, 100.0) > 0
    )  # never less than nothing, however it was disturbed
    assert use.kept == 14_336
