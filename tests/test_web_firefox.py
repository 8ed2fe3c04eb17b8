"""The page in a real headless Firefox, driven by WebDriver BiDi; what it shows is what Python says."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mifuse_runtime import Recognizer, read_audio
from tests.browser import PATIENCE, Page, needs_web, served
from tests.bundles import expected, make_bundle, speech
from tests.test_web_page import check_rows, rows, said

PULSEAUDIO = shutil.which("pulseaudio")
FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
PREFERENCES = {
    "media.navigator.streams.fake": True,  # a tone instead of the microphone
    "media.navigator.permission.disabled": True,  # nobody is there to allow it
}

pytestmark = [
    needs_web,
    pytest.mark.skipif(not find_spec("aiohttp"), reason="aiohttp is missing: pip install 'mifuse[serve]'"),
    pytest.mark.skipif(not FIREFOX, reason="no Firefox: install one (Debian: firefox-esr)"),
]


class Firefox(Page):
    """One page of a Firefox of its own; a context manager."""

    def __init__(self, profile: Path) -> None:
        profile.mkdir()
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()
        ]
        (profile / "user.js").write_text("\n".join(lines))
        command = [
            FIREFOX,
            "--headless",
            "--no-remote",
            "--remote-debugging-port=0",
            "--profile",
            str(profile),
        ]
        self._start(command, profile / "WebDriverBiDiServer.json")

    def __exit__(self, *_: object) -> None:
        self.call("browser.close")
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._do(self._session.close())
        self._loop.close()

    def open(self, address: str) -> None:
        """Go there."""
        self.call("browsingContext.navigate", context=self._page, url=address, wait="complete")

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression, awaited if it is a promise."""
        text = f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))"
        return json.loads(self._evaluate(text)["value"])

    def choose(self, selector: str, *files: Path) -> None:
        """Put files into a file input."""
        element = {"sharedId": self._evaluate(f"document.querySelector({selector!r})")["sharedId"]}
        self.call("input.setFiles", context=self._page, element=element, files=[str(file) for file in files])

    def _evaluate(self, expression: str) -> dict[str, Any]:
        options = {"awaitPromise": True, "userActivation": True, "target": {"context": self._page}}
        answer = self.call("script.evaluate", expression=expression, **options)
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        result: dict[str, Any] = answer["result"]
        return result

    async def _connect(self) -> None:
        import aiohttp

        while True:
            try:
                where = json.loads(self._port.read_text())
                break
            except (OSError, ValueError):  # not there yet, or half written
                assert self._process.poll() is None, "the browser ended at once"
                await asyncio.sleep(0.05)
        self._session = aiohttp.ClientSession()
        address = f"ws://{where['ws_host']}:{where['ws_port']}/session"
        self._socket = await self._session.ws_connect(address, max_msg_size=0)
        self._reader = self._loop.create_task(self._read())
        await self._send("session.new", {"capabilities": {}})
        (page,) = (await self._send("browsingContext.getTree", {}))["contexts"]
        self._page = page["context"]
        await self._send("session.subscribe", {"events": ["log.entryAdded", "network.beforeRequestSent"]})

    async def _read(self) -> None:
        async for message in self._socket:
            content = message.json()
            if content["type"] == "event":
                self._note(content["method"], content["params"])
            elif answer := self._answers.pop(content["id"], None):
                if content["type"] == "error":
                    answer.set_exception(RuntimeError(content["message"]))
                else:
                    answer.set_result(content["result"])

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "network.beforeRequestSent":
            self.requests.append(event["request"]["url"])
        elif event["level"] == "error":
            self.errors.append(str(event["text"]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle and recordings."""
    folder = tmp_path_factory.mktemp("firefox")
    make_bundle(folder / "bundle")
    for rate, suffix in ((44_100, "wav"), (48_000, "flac")):
        soundfile.write(folder / f"speech.{suffix}", speech(4.0, rate), rate)
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with served(place) as address:
        yield address


@pytest.fixture(scope="module")
def sound(place: Path) -> Iterator[None]:
    """A sound device that is none, if it can be had: without one Firefox starts no AudioContext."""
    if not PULSEAUDIO:
        yield
        return
    (place / "run").mkdir(mode=0o700)
    command = [PULSEAUDIO, "-n", "--daemonize=no", "--exit-idle-time=-1"]
    command += ["-L", "module-null-sink", "-L", "module-native-protocol-unix"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(place / "run"))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            yield
            server.terminate()


@pytest.fixture(scope="module")
def page(place: Path, address: str, sound: None) -> Iterator[Page]:
    with Firefox(place / "profile") as page:
        page.open(address)
        page.until(said("loaded in"))
        yield page
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith((address, "data:", "blob:"))] == []


def test_a_recording_opened_and_one_dropped(page: Page, place: Path, address: str) -> None:
    recognizer = Recognizer.load(place / "bundle")
    page.choose("#file", place / "speech.wav")
    page.until(said("speech.wav: 4.0 s"))
    check_rows(rows(page), recognizer, read_audio(place / "speech.wav"))
    page.run(
        f"fetch('{address}speech.flac').then((answer) => answer.blob()).then((blob) => {{"
        "const dataTransfer = new DataTransfer();"
        "dataTransfer.items.add(new File([blob], 'speech.flac'));"
        "const event = { dataTransfer, bubbles: true, cancelable: true };"
        "document.body.dispatchEvent(new DragEvent('drop', event));"
        "})"
    )
    page.until(said("speech.flac: 4.0 s"))
    samples = read_audio(place / "speech.flac")
    check_rows(rows(page), recognizer, samples)
    whole = recognizer.predict(samples)
    assert (
        page.run("document.querySelector('#clip').textContent")
        == f"as a whole: {whole.label} {whole.scores[whole.label]:.2f}"
    )


@pytest.mark.skipif(not PULSEAUDIO, reason="no pulseaudio: Firefox's microphone needs a sound device")
def test_the_microphone(page: Page) -> None:
    page.run("document.querySelector('#microphone').click()")
    page.until(said("Listening"))
    page.until("document.querySelectorAll('#rows tr').length > 2")
    page.run("document.querySelector('#microphone').click()")
    page.until("document.querySelector('#microphone').getAttribute('aria-pressed') === 'false'")
    found = rows(page)
    assert [float(row[0]) for row in found[:3]] == [0, 0.25, 0.5]
    # The tone that Firefox plays is steady, and far from silence.
    scores = [[float(text) for text in row[3:]] for row in found[:3]]
    assert scores[1] == pytest.approx(scores[2], abs=0.01)
    assert scores[1] != pytest.approx(list(expected(np.zeros(48_000))), abs=0.1)
