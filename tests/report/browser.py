"""A headless Chromium driven over a pipe by the DevTools protocol, with nothing to install."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def find_browser():
    """Path of a Chromium: that of `make browser`, or an installed one; None if there is none."""
    own = ROOT / ".browser" / "chromium"
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return str(own) if own.is_file() else next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One page in a headless Chromium without network; collects what goes wrong in it."""

    def __init__(self, path):
        self._folder = tempfile.TemporaryDirectory()
        theirs, self._to = os.pipe()
        self._from, ours = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += ["--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"]
        flags += ["--proxy-server=127.0.0.1:9", f"--user-data-dir={self._folder.name}"]
        # The protocol reads from descriptor 3 and writes to 4.
        shell = f'exec "$0" "$@" 3<&{theirs} 4>&{ours}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, path, *flags, "about:blank"],
            pass_fds=(theirs, ours),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self._buffer, self._count, self._session = b"", 0, None
        self.problems, self.requests, self._events = [], [], []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        found = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Network.emulateNetworkConditions", offline=True, latency=0,
                  downloadThroughput=-1, uploadThroughput=-1)  # fmt: skip

    def send(self, method, **params):
        """Calls a method and returns its result."""
        self._count += 1
        call = {"id": self._count, "method": method, "params": params}
        if self._session:
            call["sessionId"] = self._session
        os.write(self._to, json.dumps(call).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._count:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def open(self, path):
        """Opens a file and waits until it is loaded."""
        self._events.clear()
        self.send("Page.navigate", url=Path(path).resolve().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._next()

    def run(self, script):
        """Value of a JavaScript expression."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def look(self, path, width=1100, scheme="light", media="screen", whole=True, scale=1):
        """Takes a screenshot of the page as a reader with these settings sees it."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=media, features=features)
        size = {"width": width, "height": 900, "deviceScaleFactor": scale, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            os.write(self._to, b'{"id": 0, "method": "Browser.close"}\0')
        self._process.wait(20)
        self._folder.cleanup()
        os.close(self._to)
        os.close(self._from)

    def _next(self):
        while b"\0" not in self._buffer:
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser ended")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        method, params = message.get("method"), message.get("params", {})
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" or (
            method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning")
        ):
            self.problems.append(params)
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return message
