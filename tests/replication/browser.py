"""A headless Chromium, driven through its DevTools protocol."""

import json
import shutil
import subprocess
import time
from contextlib import contextmanager

import websocket

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--remote-debugging-port=0")  # fmt: skip
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Navigated(AssertionError):
    """The page went away while it was asked."""


class Page:
    """One tab; ``complaints`` are the errors of its console and of what it loads."""

    def __init__(self, connection):
        self._connection = connection
        self._calls = 0
        self._events = []
        self.complaints = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **values):
        self._calls += 1
        self._connection.send(json.dumps({"id": self._calls, "method": method, "params": values}))
        while (answer := self._receive()).get("id") != self._calls:
            pass
        if "navigated" in answer.get("error", {}).get("message", ""):
            raise Navigated(method)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _receive(self):
        message = json.loads(self._connection.recv())
        kind, values = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.complaints.append(details.get("exception", details))
        elif kind == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.complaints.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")
        elif kind == "Runtime.consoleAPICalled" and values["type"] == "error":
            self.complaints.append(str(values["args"]))
        elif kind == "Network.requestWillBeSent":
            url = values["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:")):
                self.complaints.append(f"asks the network for {url}")
        self._events.append(kind)
        return message

    def open(self, url, *, width=1280, dark=False):
        """Load a page at a width in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                  deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        for place in ("about:blank", url):  # or an anchor in the same page would load nothing
            self._events.clear()
            self.call("Page.navigate", url=place)
            while "Page.loadEventFired" not in self._events:
                self._receive()
        # Formulas are set after the page has loaded; a page without any has no MathJax.
        self.value("window.MathJax?.startup?.promise?.then(() => 0)")

    def value(self, expression):
        """What a JavaScript expression, or the promise that it gives, comes to."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def until(self, expression):
        """Wait for a JavaScript expression to be true, on this page or the one that follows."""
        deadline = time.monotonic() + 30
        while not self._holds(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.05)

    def _holds(self, expression):
        try:
            return self.value(expression)
        except Navigated:
            return False


@contextmanager
def chromium(profile):
    """A browser with a fresh profile; yields its page."""
    browser = subprocess.Popen(
        [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        port = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port.is_file() and len(port.read_text().split()) == 2):
            assert browser.poll() is None and time.monotonic() < deadline, "no Chromium"
            time.sleep(0.05)
        number, path = port.read_text().split()
        root = websocket.create_connection(
            f"ws://127.0.0.1:{number}{path}", suppress_origin=True, timeout=60
        )
        root.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
        while (answer := json.loads(root.recv())).get("id") != 1:
            pass
        (tab,) = [t for t in answer["result"]["targetInfos"] if t["type"] == "page"]
        address = f"ws://127.0.0.1:{number}/devtools/page/{tab['targetId']}"
        connection = websocket.create_connection(address, suppress_origin=True, timeout=60)
        yield Page(connection)
        connection.close()
        root.close()
    finally:
        browser.terminate()
        browser.wait(30)
