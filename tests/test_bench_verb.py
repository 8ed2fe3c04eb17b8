"""`make bench`: every table of the docs is known, stored ones can be printed, what is measured is kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import benchmarks.__main__ as bench

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Make corpora, look for crashes until they are stopped, need corpora that the user has, or are no command.
NO_TABLE = {"archives", "guided", "paper", "baselines"}


def table(**settings: object) -> bench.Table:
    return bench.Table("it", "README.md", **({"command": "platform", "minutes": 0.1} | settings))


def test_every_table_of_the_docs_is_known() -> None:
    rows, text = bench.tables(), "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert len({row.name for row in rows}) == len(rows)
    assert all((ROOT / row.page).is_file() and (row.command or row.stored) for row in rows)
    assert set(re.findall(r"benchmarks/results/([\w-]+\.\w+)", text)) <= {row.stored for row in rows}
    modules = set(re.findall(r"benchmarks\.(\w+)", text)) - NO_TABLE
    measured = {row.command.split()[0].partition(".")[2] for row in rows if row.command}
    stored = {"field", "transfers", "export", "speakers", "compression"}  # whose results are printed
    assert modules - measured == stored


@pytest.mark.parametrize("row", [row for row in bench.tables() if row.stored], ids=lambda row: row.name)
def test_what_is_stored_can_be_printed(row: bench.Table) -> None:
    head, _, text = row.from_stored().partition("\n\n")
    assert re.search(r"\d{4}-\d\d-\d\d|unknown date", head)
    assert len([line for line in text.splitlines() if line.startswith("|")]) > 2


def test_what_is_measured_is_kept_until_the_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(bench, "tables", lambda: [table()])
    monkeypatch.setattr(bench, "code", lambda: "one")
    assert bench.main([]) == 0
    first = capfd.readouterr().out
    assert "Measuring, about 0.1 min: `python -m platform`" in first
    assert bench.main([]) == 0
    assert f"Measured here: `python -m platform` at {bench.commit()}" in capfd.readouterr().out
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.read_text().splitlines()[-1] == first.splitlines()[-1]
    monkeypatch.setattr(bench, "code", lambda: "another")
    assert bench.main([]) == 0
    assert "Measuring" in capfd.readouterr().out


def test_what_cannot_be_measured_says_why(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MIFUSE_CORPORA", raising=False)
    for row, why in (
        (table(needs=("MIFUSE_CORPORA",)), "Not measured, without MIFUSE_CORPORA. README.md has the numbers"),
        (table(minutes=9.0), "Not measured, as that takes about 9 min: make bench ARGS=it. README.md has"),
        (table(command="", stored="peers.json"), "Not measured, as that takes hours. Stored: `python -m"),
    ):
        monkeypatch.setattr(bench, "tables", lambda row=row: [row])
        assert bench.main([]) == 0
        assert why in capfd.readouterr().out
    assert bench.main(["it"]) == 1  # asked for by name
    with pytest.raises(SystemExit):
        bench.main(["another"])


def test_a_failure_and_ctrl_c_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "KEPT", tmp_path)
    monkeypatch.setattr(bench, "tables", lambda: [table(command="no_such_module")])
    assert bench.main([]) == 1
    assert "it ended with exit code 1" in capfd.readouterr().out
    endless = "timeit -n 1 -r 1 \"import time; print('| 1 |', flush=True); time.sleep(60)\""
    monkeypatch.setattr(bench, "tables", lambda: [table(command=endless)])
    say = bench._say

    def stops(text: str, end: str = "\n") -> None:
        if text == "| 1 |\n":
            raise KeyboardInterrupt
        say(text, end)

    monkeypatch.setattr(bench, "_say", stops)
    assert bench.main([]) == 130
    assert "goes on from here" in capfd.readouterr().out
    assert not list(tmp_path.iterdir())
