"""The report in a real headless Chromium: no console errors, players that play, light, dark, on a phone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import soundfile

from mifuse.runs.report import write_report
from tests.browser import Page, needs_browser, served
from tests.bundles import speech
from tests.test_report import make_run

pytestmark = needs_browser
ROOT = Path(__file__).resolve().parent.parent
PICTURES = os.environ.get("MIFUSE_PICTURES", "")  # a folder of the repository to renew its pictures in
ONE = {"ua": 63.0, "ua_interval": [51, 74], "accuracy": 64.0, "accuracy_interval": [52, 75]}
LALM = {"ua": 48.0, "ua_interval": [38, 58], "accuracy": 50.0, "accuracy_interval": [40, 60]}
SCORES = {"student": ONE, "LALM": LALM}
VERDICT = {"archive": SCORES, "new_voices": SCORES, "checked": 0, "advice": "Deploy the student."}


def test_it_opens_plays_and_fits(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", verdict=VERDICT)
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
            for size, (width, height) in {"wide": (960, 720), "phone": (390, 780)}.items():
                picture = tmp_path / f"report-{size}-{scheme}.png"
                page.picture(picture, width, height)
                assert page.run("document.documentElement.scrollWidth") <= width
                if PICTURES:
                    shutil.copy(picture, ROOT / PICTURES)
        assert grounds[0] != grounds[1]
        assert page.errors == []
