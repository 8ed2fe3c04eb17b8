"""The report in a real headless Chromium: no console errors, players that play, light, dark, on a phone."""

from __future__ import annotations

from pathlib import Path

import soundfile

from mifuse.runs.report import write_report
from tests.browser import Page, needs_browser, served
from tests.bundles import speech
from tests.test_report import make_run

pytestmark = needs_browser


def test_it_opens_plays_and_fits(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for recording in folder.glob("*.wav"):
        soundfile.write(recording, speech(1.0), 16_000)
    write_report(folder)
    with served(folder) as address, Page(tmp_path / "profile", plays=folder / "0.wav") as page:
        page.open(f"{address}report.html")
        page.until("document.querySelectorAll('audio').length === 12")
        page.run("document.querySelector('audio').play()")
        page.until("document.querySelector('audio').currentTime > 0")
        grounds = []
        for scheme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            page.call("Emulation.setEmulatedMedia", features=media)
            grounds.append(page.run("getComputedStyle(document.body).backgroundColor"))
            page.picture(tmp_path / f"{scheme}.png", 390, 780)
            assert page.run("document.documentElement.scrollWidth") <= 390
        assert grounds[0] != grounds[1]
        assert page.errors == []
