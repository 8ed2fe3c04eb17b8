"""The table of awkward files through every reader: workstation, device (bare, too), JavaScript."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mifuse.clips import audio
from mifuse_runtime import AudioError, read_audio
from tests.awkward import Awkward, files
from tests.browser import Ask, needs_web
from tests.bundles import RATE

FILES = list(files())
PAGE = Path(__file__).resolve().parent.parent / "docs" / "audio.md"
HEAD = "| kind | files | Python alone | with soundfile | JavaScript |\n| --- | --- | --- | --- | --- |\n"


def named(file: Awkward) -> str:
    return f"{file.kind}: {file.name}"


def check(file: Awkward, read: Callable[[], np.ndarray], *, able: bool = True) -> np.ndarray | None:
    """What a reader gives is right, or its error is; `able`: whether it can decode the coding at all."""
    if isinstance(file.right, str) or not able:
        with pytest.raises((AudioError, RuntimeError)) as caught:
            read()
        message = str(caught.value).removeprefix("AudioError: ")
        assert "\n" not in message
        if able and isinstance(file.right, str):
            assert re.search(file.right, message), message
        return None
    found = read()
    wanted = round(file.right.size * RATE / file.rate)
    assert abs(found.size - wanted) <= (
        0.25 * wanted if file.name == "from the middle" else 3000 * (file.close >= 0.05) + 2
    )
    if file.rate == RATE and file.close < 0.1:
        np.testing.assert_allclose(found[:wanted], file.right[: found.size], atol=file.close)
    else:  # another rate, or a coding that hears rather than copies
        power = [np.sqrt(np.mean(np.square(samples, dtype=np.float64))) for samples in (found, file.right)]
        assert power[0] == pytest.approx(power[1], rel=0.1)
    return found


@pytest.mark.parametrize("file", FILES, ids=named)
def test_workstation_and_device_agree(file: Awkward, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"  # the name says nothing
    path.write_bytes(file.content)
    here, there = (check(file, lambda read=read: read(path)) for read in (audio.read_audio, read_audio))
    if here is not None and there is not None:
        assert here.size == pytest.approx(there.size, abs=2)
        size = min(here.size, there.size)
        close = 1e-5 if file.rate == RATE else 0.02  # two resamplers
        inner = slice(None) if file.rate == RATE else slice(200, size - 200)
        np.testing.assert_allclose(here[:size][inner], there[:size][inner], atol=close)


@pytest.mark.parametrize("file", FILES, ids=named)
def test_device_alone(file: Awkward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setenv("PATH", str(tmp_path))  # no ffmpeg
    (tmp_path / "a.wav").write_bytes(file.content)
    check(file, lambda: read_audio(tmp_path / "a.wav"), able=not file.needs)


@needs_web
@pytest.mark.parametrize("file", FILES, ids=named)
def test_javascript(file: Awkward, ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(file.content)
    found = check(file, lambda: np.array(ask("read", file=path), np.float32), able=not file.needs)
    if found is not None:
        np.testing.assert_allclose(found, read_audio(path), atol=2e-5)


def test_the_page_has_the_table() -> None:
    kinds = dict.fromkeys(file.kind for file in FILES)
    rows = []
    for kind in kinds:
        group = [file for file in FILES if file.kind == kind]
        cells = []
        for able in (lambda file: not file.needs, lambda _: True, lambda file: not file.needs):
            read = sum(able(file) and not isinstance(file.right, str) for file in group)
            cells.append({0: "refused", len(group): "read"}.get(read, f"{read} read"))
        rows.append(f"| {kind} | {len(group)} | {' | '.join(cells)} |\n")
    table = HEAD + "".join(rows)
    assert len(FILES) >= 60 and len({named(file) for file in FILES}) == len(FILES)
    assert table in PAGE.read_text(encoding="utf-8"), table
