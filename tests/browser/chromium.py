"""A headless Chromium over its DevTools protocol: one page, and all that went wrong on it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.integration.daemon import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome")
WAIT_S_MAX = 20.0
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class NotStarted(Exception):
    """There is a Chromium, and it does not start on this machine."""


def program() -> str | None:
    return next((found for found in map(shutil.which, NAMES) if found), None)


class Page:
    """``requests`` are the addresses it asked for, ``complaints`` what came up in its console or was thrown."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._session, self._number = socket, "", 0
        self._loaded = False
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def open(self) -> None:
        context = await self._call("Target.createBrowserContext", disposeOnDetach=True)
        target = await self._call("Target.createTarget", url="about:blank", **context)
        attached = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self._call(f"{domain}.enable")

    async def go(self, address: str) -> None:
        self._loaded = False
        await self._call("Page.navigate", url=address)
        async with asyncio.timeout(WAIT_S_MAX):
            while not self._loaded:
                self._hear(json.loads((await self._socket.receive()).data))

    async def value(self, expression: str) -> Any:
        found = await self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, condition: str, timeout_s: float = WAIT_S_MAX) -> None:
        """Waits in the page itself, which looks again and again."""
        look = f"const look = () => ({condition}) ? done(true) : setTimeout(look, 20); look();"
        try:
            async with asyncio.timeout(timeout_s):
                await self.value(f"new Promise(done => {{ {look} }})")
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s:g} s: {condition}") from None

    async def shape(self, width: int, height: int, *, dark: bool = False) -> None:
        size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self._call("Emulation.setDeviceMetricsOverride", **size)
        wanted = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self._call("Emulation.setEmulatedMedia", features=[wanted])

    async def picture(self) -> bytes:
        """As PNG."""
        shot = await self._call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    async def move_to(self, x: float, y: float) -> None:
        await self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": parameters, **session}))
        async with asyncio.timeout(2 * WAIT_S_MAX):
            async for message in self._socket:
                heard = json.loads(message.data)
                if heard.get("id") == number:
                    assert "error" not in heard, (method, heard["error"])
                    return dict(heard["result"])
                self._hear(heard)
        raise AssertionError(f"{method}: Chromium has gone")

    def _hear(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Log.entryAdded" if told["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(told["entry"]["text"])
            case "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(told["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["exceptionDetails"]))


@asynccontextmanager
async def page_of(browser: str) -> AsyncIterator[Page]:
    """A page that knows nothing of others."""
    async with aiohttp.ClientSession() as client, client.ws_connect(browser, max_msg_size=0) as socket:
        page = Page(socket)
        await page.open()
        yield page


@contextmanager
def chromium(folder: Path) -> Iterator[str]:
    """The address of its DevTools; it is gone at the end of the block. Raises NotStarted."""
    found = program()
    assert found is not None
    port_file = folder / "DevToolsActivePort"
    process = subprocess.Popen(
        [found, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        try:
            wait_until(lambda: port_file.exists() and port_file.read_text().count("\n") > 0, "Chromium's port")
        except AssertionError as error:
            raise NotStarted(f"{error}") from None
        port, path = port_file.read_text().split()
        yield f"ws://127.0.0.1:{port}{path}"
    finally:
        process.terminate()
        try:
            process.wait(WAIT_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
