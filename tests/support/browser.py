"""Headless Chromium, driven over pipes.

It uses the DevTools protocol on two pipes, without a driver, a package or a port.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 300  # seconds for one answer; machines may be busy
DRAWN = """new Promise(done => {
  const look = () => document.getElementById("figures") && !document.documentElement.dataset.drawn
    ? requestAnimationFrame(look) : done(1);
  look();
})"""  # resolves once the page has unpacked plotly.js and drawn its figures, if it has any


class Browser:
    """A browser with one page at a time; ``errors`` and ``requests`` are those since the page was opened."""

    def __init__(self, folder: Path) -> None:
        to_browser, from_browser = os.pipe(), os.pipe()
        options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars"
        command = f'exec "$0" {options} --remote-debugging-pipe --user-data-dir="$1" about:blank'
        command += f" 3<&{to_browser[0]} 4>&{from_browser[1]}"
        self.process = subprocess.Popen(
            ["bash", "-c", command, str(CHROMIUM), str(folder / "profile")],
            pass_fds=(to_browser[0], from_browser[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser[0])
        os.close(from_browser[1])
        self._write, self._read = to_browser[1], from_browser[0]
        self._buffer, self._ids = b"", itertools.count(1)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._session = None
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; record the events that arrive before it."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        limit = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            assert time.monotonic() < limit, "the browser does not answer"
            if select.select([self._read], [], [], 1)[0]:
                read = os.read(self._read, 1 << 20)
                assert read, "the browser is gone"
                self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        event = json.loads(line)
        self._note(event.get("method"), event.get("params", {}))
        return event

    def _note(self, method: str | None, given: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(given["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled":
            self.errors.append(json.dumps(given["args"])[:500])
        elif method == "Log.entryAdded":
            self.errors.append(given["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.errors.append(f"dialog: {given['message']}")

    def open(
        self, page: Path, *, width: int = 1280, height: int = 1600, dark: bool = False, phone: bool = False
    ) -> None:
        """Load a file at a size and in a theme, and wait until its figures are drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )  # fmt: skip
        self.theme(dark)
        self.errors, self.requests, self._loaded = [], [], False
        self.call("Page.navigate", url=page.as_uri())
        while not self._loaded:
            self._next()
        self.run(DRAWN)
        self.settle()

    def theme(self, dark: bool) -> None:
        wanted = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[wanted])

    def settle(self) -> None:
        """Wait until the page has painted twice."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression, after waiting for a promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release one key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key if len(key) > 1 else "Space",
                      windowsVirtualKeyCode=code, **({"text": text} if text and kind == "keyDown" else {}))  # fmt: skip
        self.settle()

    def picture(self, path: Path, *, top: int, height: int) -> None:
        """Write a PNG of ``height`` pixels of the page from ``top`` on, over its whole width."""
        width = self.call("Page.getLayoutMetrics")["cssContentSize"]["width"]
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser(folder: Path):
    """Open a browser on ``folder`` and close it at the end.

    Without Chromium the test is skipped; with BERTFT_REQUIRE_BROWSER=1 it fails.
    """
    if CHROMIUM is None:
        if os.environ.get("BERTFT_REQUIRE_BROWSER") == "1":
            pytest.fail("no Chromium or Chrome on this machine, and BERTFT_REQUIRE_BROWSER=1 asks for one")
        pytest.skip("no Chromium or Chrome on this machine")
    opened = Browser(folder)
    try:
        yield opened
    finally:
        opened.close()
