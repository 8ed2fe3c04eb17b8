"""Node, and a headless Chromium driven by the DevTools protocol over aiohttp, for tests."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest

WEB = Path(__file__).resolve().parent.parent / "runtime" / "web"
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0  # seconds for anything that a page must do; CI machines are busy


BROWSER = os.environ.get("MIFUSE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)

needs_web = pytest.mark.skipif(
    not (shutil.which("node") and (WEB / "node_modules" / "onnxruntime-web").is_dir()),
    reason="Node or onnxruntime-web is missing: install Node 20.16 or newer and run `make web`",
)
needs_browser = [
    needs_web,
    pytest.mark.skipif(not find_spec("aiohttp"), reason="aiohttp is missing: pip install 'mifuse[serve]'"),
    pytest.mark.skipif(
        not BROWSER,
        reason="no Chromium: install one (Debian: chromium-headless-shell), or name one in MIFUSE_BROWSER",
    ),
]


Ask = Callable[..., Any]


@contextmanager
def node() -> Iterator[Ask]:
    """Calls functions of web_driver.mjs, which runs until the end: it starts slowly."""
    driver = subprocess.Popen(
        ["node", Path(__file__).parent / "web_driver.mjs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdin
    assert driver.stdout

    def call(name: str, **request: Any) -> Any:
        driver.stdin.write(json.dumps({"call": name, **request}, default=str) + "\n")
        driver.stdin.flush()
        answer = json.loads(driver.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    yield call
    driver.stdin.close()
    assert driver.wait(60) == 0


def ask_graph(ask: Ask, file: Path, batch: np.ndarray) -> np.ndarray:
    """What onnxruntime-web gives for the one input of an ONNX file."""
    with tempfile.NamedTemporaryFile() as data:
        data.write(batch.astype("<f4").tobytes())
        data.flush()
        return np.array(ask("graph", file=file, data=data.name, dims=batch.shape), np.float32)


class _Handler(SimpleHTTPRequestHandler):
    """The page as `npm start` serves it, and the files of a folder beside it."""

    def __init__(self, *arguments: Any, beside: Path) -> None:
        self._beside = beside
        super().__init__(*arguments, directory=str(WEB))

    def translate_path(self, path: str) -> str:
        inside = self._beside / path.partition("?")[0].lstrip("/")
        return str(inside) if inside.is_file() else super().translate_path(path)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(beside: Path) -> Iterator[str]:
    """Address of the page, and of what is in `beside`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, beside=beside)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Page:
    """One page of a browser of its own; a context manager."""

    def __init__(self, profile: Path, plays: Path) -> None:
        """`plays` is the WAV file that the microphone plays again and again."""
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--mute-audio"]
        command += ["--no-zygote", "--in-process-gpu", "--disable-background-networking"]  # fewer processes
        command += ["--use-fake-ui-for-media-stream"]  # nobody is there to allow the microphone
        command += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={plays}"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        self._start(command, profile / "DevToolsActivePort")

    def _start(self, command: list[str | None], port: Path) -> None:
        """Start the browser, which writes to `port` where it listens."""
        self.errors: list[str] = []  # of the page: exceptions, console errors, what its policy refused
        self.requests: list[str] = []  # addresses that the page asked for
        self._port = port
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._loop = asyncio.new_event_loop()
        self._count = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    def __enter__(self) -> Page:
        self._do(self._connect())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Asked, not killed: what Debian starts is a script, whose browser would live on.
        self._do(self._send("Browser.close", {}))
        self._process.wait(PATIENCE)
        self._do(self._session.close())
        self._loop.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Answer to a command of the protocol."""
        return self._do(self._send(method, parameters))

    def open(self, address: str) -> None:
        """Go there."""
        self.call("Page.navigate", url=address)

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression, awaited if it is a promise."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """The expression's value, as soon as it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression}; the page says: {self.run('document.body?.innerText')}")
            time.sleep(0.1)
        return value

    def choose(self, selector: str, *files: Path) -> None:
        """Put files, or a folder, into a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def picture(self, path: Path, width: int, height: int, scale: float = 1.0) -> None:
        """Write a PNG of the page on a screen of that size."""
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300)))")
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(work, PATIENCE))

    async def _connect(self) -> None:
        import aiohttp

        while not (self._port.exists() and len(lines := self._port.read_text().splitlines()) == 2):
            assert self._process.poll() is None, "the browser ended at once"
            await asyncio.sleep(0.05)
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{lines[0]}/json") as response:
            (page,) = [target for target in await response.json() if target["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        self._reader = self._loop.create_task(self._read())
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self._send(f"{domain}.enable", {})

    async def _send(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        answer = self._answers[self._count] = self._loop.create_future()
        await self._socket.send_json({"id": self._count, "method": method, "params": parameters})
        return await answer

    async def _read(self) -> None:
        async for message in self._socket:
            content = message.json()
            if answer := self._answers.pop(content.get("id"), None):
                if "error" in content:
                    answer.set_exception(RuntimeError(content["error"]["message"]))
                else:
                    answer.set_result(content["result"])
            else:
                self._note(content["method"], content["params"])

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(event["exceptionDetails"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.errors.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and event["type"] == "error":
            self.errors.append(str(event["args"]))
