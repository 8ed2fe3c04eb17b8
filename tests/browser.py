"""A headless Chromium for tests, driven by the DevTools protocol over aiohttp."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0  # seconds for anything that a page must do; CI machines are busy


def find_browser() -> str | None:
    """The Chromium to test in: `MIFUSE_BROWSER`, or one that is installed."""
    return os.environ.get("MIFUSE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of a browser of its own; a context manager."""

    def __init__(self, profile: Path, options: Sequence[str] = ()) -> None:
        command = [find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--mute-audio"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", *options, "about:blank"]
        self.errors: list[str] = []  # of the page: exceptions, console errors, what its policy refused
        self.requests: list[str] = []  # addresses that the page asked for
        self._port = profile / "DevToolsActivePort"
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
