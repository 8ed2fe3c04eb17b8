"""Text of others goes to terminals, sheets and pages as what it is, and does nothing there."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mifuse.cli import main
from mifuse.clips.manifest import read_manifest, write_manifest
from mifuse.commands.output import OneLine
from mifuse.runs.predictions import Predictions, read_predictions, write_predictions
from mifuse_runtime.__main__ import main as runtime
from mifuse_runtime.shown import quoted, shown, unquoted
from tests.bundles import make_bundle, tone

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202egnp.exe\u2028"


@given(st.text())
def test_shown_is_one_printable_line_and_json_agrees(text: str) -> None:
    line = shown(text)
    assert len(line.splitlines()) <= 1 and all(c.isprintable() or c in "\u00a0\u3000" for c in line)
    line.encode()
    if not set(text) & set('"\\'):
        assert json.loads(f'"{line}"') == text
    assert len(shown(text, 10)) <= 120


@given(st.text())
def test_quoted_cells_come_back(text: str) -> None:
    cell = quoted(text)
    assert unquoted(cell) == text and not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_errors_and_logs(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["evaluate", str(tmp_path / EVIL), str(tmp_path / f"{EVIL}.csv")])
    assert done.exit_code in (1, 2) and not set(done.output) & set(EVIL[:1] + "\x07\x9b\r\u202e\u2028")
    done = CliRunner().invoke(main, ["train", "m.csv", "--encoder", EVIL, "-o", "x"])
    assert done.exit_code == 2 and "\\u001b" in done.output and "\x1b" not in done.output
    record = logging.LogRecord("mifuse", logging.WARNING, "", 1, "%s", (EVIL,), None)
    assert "\x1b" not in OneLine("%(message)s").format(record)


def test_names_of_files_on_the_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_bundle(tmp_path / "bundle")
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("=1+1.wav", "a\x1b[2J\u202e.wav", "@x.wav"):
        soundfile.write(clips / name, tone(0.3), 16_000)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.chdir(clips)
        for more in ([], ["--csv"], ["--json"]):
            assert runtime(["predict", str(folder), "=1+1.wav", "a\x1b[2J\u202e.wav", "@x.wav", *more]) == 0
            out = capsys.readouterr().out
            assert not set(out) & set("\x1b\u202e")
            if more == ["--csv"]:
                rows = list(csv.reader(io.StringIO(out)))
                assert [row[0] for row in rows[1:]] == ["'=1+1.wav", "a\\u001b[2J\\u202e.wav", "'@x.wav"]


def test_sheets_come_back(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "=cmd.wav", tone(0.3), 16_000)
    (tmp_path / "m.csv").write_text("path,speaker,note\n=cmd.wav,-anna,@note\n")
    read = read_manifest(tmp_path / "m.csv")
    write_manifest(tmp_path / "again.csv", read.clips)
    text = (tmp_path / "again.csv").read_text()
    assert "'=cmd.wav,'-anna,'@note" in text
    assert [(c.name, c.speaker, c.extra) for c in read_manifest(tmp_path / "again.csv").clips] == [
        ("=cmd.wav", "-anna", {"note": "@note"})
    ]
    found = Predictions(("a", "b"), (("=cmd.wav", None, None, None),), {"student": np.array([[0.5, 0.5]])})
    write_predictions(tmp_path / "p.csv", found)
    assert "'=cmd.wav" in (tmp_path / "p.csv").read_text()
    assert read_predictions(tmp_path / "p.csv", ("a", "b")).keys == found.keys
