"""A real browser for tests: headless Chromium over its DevTools protocol, nothing else needed."""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import websocket

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab of a Chromium with a profile of its own."""

    def __init__(self, folder):
        flags = ["--headless=new", "--disable-gpu", "--no-first-run", "--mute-audio"]
        flags += ["--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        profile = Path(folder) / "profile"
        self.process = subprocess.Popen(
            [CHROMIUM, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        place = profile / "DevToolsActivePort"
        wait(lambda: place.exists() and "\n" in place.read_text(), 30)
        port = place.read_text().split()[0]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new", method="PUT")
        with urllib.request.urlopen(request) as reply:
            url = json.load(reply)["webSocketDebuggerUrl"]
        self.socket = websocket.create_connection(url, timeout=60, suppress_origin=True)
        self.count = 0
        self.requests = []
        self.complaints = []
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message):
        values = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.complaints.append(details.get("exception", details).get("description"))
        elif message.get("method") == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.complaints.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")

    def run(self, script):
        """Evaluate JavaScript, wait for promises, return the value."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def open(self, url):
        self.call("Page.navigate", url=url)

    def size(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 700,
        )

    def theme(self, name):
        feature = {"name": "prefers-color-scheme", "value": name}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def key(self, name, text=None):
        codes = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, "Space": 32}
        code = codes.get(name, ord(name[0].upper()))
        values = {"key": text or name, "windowsVirtualKeyCode": code}
        if text:
            values["text"] = text
        self.call("Input.dispatchKeyEvent", type="keyDown", **values)
        self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def type(self, field, text):
        """Put text into a field as a person does: select what is there, type over it."""
        self.run(f"{{const f = document.getElementById('{field}'); f.focus(); f.select()}}")
        self.call("Input.insertText", text=text)

    def choose_file(self, field, path):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=f"#{field}")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path, whole=True):
        options = {"captureBeyondViewport": whole, "format": "png"}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = size | {"scale": 1}
        image = self.call("Page.captureScreenshot", **options)["data"]
        Path(path).write_bytes(base64.b64decode(image))

    def until(self, script, seconds=30):
        """Wait until JavaScript is true; tell what it was instead."""
        wait(lambda: self.run(script), seconds, script)

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)


def wait(is_so, seconds, what="the browser's start"):
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
