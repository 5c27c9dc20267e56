"""A headless Chromium that tests drive over its DevTools protocol, with what is here already.

Needs the program `chromium`; `resilience.testing.requirement` says what becomes of a test without.
"""

import asyncio
import base64
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tornado.websocket import WebSocketClientConnection, websocket_connect

from resilience.testing.process import ServerProcess
from resilience.testing.requirement import require
from resilience.testing.waiting import wait_until

AXE = Path(__file__).parent / "axe" / "axe.min.js"
ADDRESS = re.compile(r"DevTools listening on ws://([\d.:]+)/")
SECONDS = 20.0
# Noted before the page's own scripts run: what the policy of the page forbids, and what went wrong.
WATCH = """
window.seen = {forbidden: [], errors: []};
document.addEventListener('securitypolicyviolation', (e) => seen.forbidden.push(
  `${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`));
window.addEventListener('error', (e) => seen.errors.push(e.message));
window.addEventListener('unhandledrejection', (e) => seen.errors.push(String(e.reason)));
"""
KEYS = {"Enter": ("\r", 13), "Tab": ("", 9), "Escape": ("", 27), " ": (" ", 32)}


class Tab:
    """A tab of the browser."""

    def __init__(self, address: str) -> None:
        """Open one at the browser that listens at *address*."""
        self._loop = asyncio.new_event_loop()
        opened = httpx.put(f"http://{address}/json/new?about:blank").json()
        self._socket: WebSocketClientConnection = self._loop.run_until_complete(
            self._connect(opened["webSocketDebuggerUrl"])
        )
        self._number = 0
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

    @staticmethod
    async def _connect(url: str) -> WebSocketClientConnection:
        return await websocket_connect(url, max_message_size=64 << 20)

    def close(self) -> None:
        """Close the connection; the browser closes the tab when it ends."""

        async def close() -> None:
            self._socket.close()
            while await self._socket.read_message() is not None:
                pass

        self._loop.run_until_complete(close())
        self._loop.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - the protocol's
        """Return what the browser answers to *method*."""
        self._number += 1
        text = json.dumps({"id": self._number, "method": method, "params": parameters})
        return self._loop.run_until_complete(asyncio.wait_for(self._exchange(text), SECONDS))

    async def _exchange(self, text: str) -> dict[str, Any]:
        await self._socket.write_message(text)
        while True:
            said = json.loads(await self._socket.read_message() or "{}")
            if said.get("id") == self._number:
                assert "error" not in said, f"{text}: {said['error']}"
                result: dict[str, Any] = said["result"]
                return result
            assert said, "the browser has closed the connection"

    def open(self, url: str) -> None:
        """Show *url*, once its scripts have run."""
        self.call("Page.navigate", url=url)
        self.wait_for(
            f"location.href.startsWith({json.dumps(url)}) && document.readyState == 'complete'"
        )

    def run(self, script: str) -> Any:  # noqa: ANN401 - JSON
        """Return the value of *script*, awaited if it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, f"{script}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = SECONDS) -> None:
        """Wait until *script* is true."""
        wait_until(lambda: bool(self.run(script)), seconds, script)

    def text(self, selector: str) -> str:
        """Return what a user reads in the first element that *selector* finds."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as a user does: names of KEYS, or texts to type."""
        for key in keys:
            if key not in KEYS:
                self.call("Input.insertText", text=key)
                continue
            text, code = KEYS[key]
            named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
            self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def focus(self, selector: str) -> None:
        """Move the focus to an element that a user could reach with Tab."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{found}.scrollIntoView(), {found}.focus()")
        assert self.run(f"document.activeElement === {found}"), f"{selector} takes no focus"

    def show_as(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Show pages as wide, and as dark, as that."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Write what is seen to *path*, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def accessibility(self) -> list[str]:
        """Return what axe-core calls serious or critical in the page that is shown."""
        self.run(AXE.read_text() + ";true")
        found = self.run("axe.run({resultTypes: ['violations']}).then((all) => all.violations)")
        return [
            f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']][:3]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]


@contextmanager
def running_browser(directory: Path) -> Iterator[Tab]:
    """Run a browser with its files in *directory*, and a tab in it."""
    program = shutil.which("chromium")
    require("chromium", present=program is not None)
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run")
    browser = ServerProcess(
        [
            str(program),
            *options,
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            f"--user-data-dir={directory / 'profile'}",
            "about:blank",
        ],
        ready="DevTools listening on",
        log_path=directory / "chromium.log",
        env={},
    )
    browser.start()
    try:
        found = ADDRESS.search(browser.log)
        assert found is not None, browser.log
        tab = Tab(found[1])
        try:
            yield tab
        finally:
            tab.close()
    finally:
        browser.kill()
