"""Chromium without a window, driven over its DevTools protocol."""

import base64
import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import time

import harness
from websockets.sync.client import connect

BIN = shutil.which("chromium") or shutil.which("chromium-browser")
# Chromium asks others for updates and the like; nothing here leaves the machine.
FLAGS = [
    "--headless=new",
    "--no-sandbox",  # which needs more than a container gives
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]


class Browser:
    """One page. What its scripts complain of is in `complaints`."""

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._log = open(folder / "chromium.log", "ab")  # noqa: SIM115
        self._process = subprocess.Popen(
            [BIN, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        port_file = folder / "DevToolsActivePort"
        harness.wait_for(
            lambda: port_file.exists() and port_file.read_text().count("\n"), 30, "chromium is up"
        )
        port, path = port_file.read_text().split()[:2]
        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(
            connect(f"ws://127.0.0.1:{port}{path}", max_size=2**26, proxy=None, ping_interval=None)
        )
        self._number = 0
        self._session = None
        self.complaints: list[str] = []
        pages = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in pages if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        with contextlib.suppress(Exception):
            self._open.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def call(self, method: str, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        deadline = time.monotonic() + 30 * harness.PATIENCE
        while True:
            heard = json.loads(self._socket.recv(timeout=deadline - time.monotonic()))
            if heard.get("id") == self._number:
                assert "error" not in heard, (method, heard["error"])
                return heard["result"]
            self._note(heard)

    def _note(self, event: dict):
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", str(details)))
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))

    def run(self, script: str):
        """The value of an expression on the page; a promise is waited for."""
        out = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in out, out["exceptionDetails"]
        return out["result"].get("value")

    def wait(self, script: str, seconds: float = 15):
        return harness.wait_for(lambda: self.run(script), seconds, f"the page says {script}")

    def text(self, selector: str = "body") -> str:
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def look(self, width: int, height: int, dark: bool = False, calm: bool = False):
        """The size of its window, and what its user likes."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        likes = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if calm else "no-preference",
        }
        features = [{"name": name, "value": value} for name, value in likes.items()]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def type(self, selector: str, text: str):
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def press(self, key: str):
        codes = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), " ": (32, " ")}
        code, text = codes[key]
        names = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **names)
        self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    def screenshot(self, file: pathlib.Path, whole: bool = False):
        out = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(out["data"]))
