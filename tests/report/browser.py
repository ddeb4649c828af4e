"""A real headless Chromium, driven over its DevTools pipe: what did a page really do?

Commands and events are JSON ending in a zero byte, written to the browser's file descriptor 3 and
read from 4; nothing listens on a port.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 60.0  # seconds for one answer, on a machine that is busy
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """The browser's path, if this machine has one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@dataclass
class Visit:
    """All that a page did between being opened and being closed."""

    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)  # console calls, exceptions, browser's log
    violations: list[str] = field(default_factory=list)  # of the content-security policy
    dialogs: list[str] = field(default_factory=list)
    answers: list = field(default_factory=list)  # of the scripts that the test evaluated

    def trouble(self, address: str) -> list[str]:
        """Everything that a quiet, self-contained page at this address would not have done."""
        fetched = [
            f"request: {url}"
            for url in self.requests
            if url != address and not url.startswith("data:")
        ]
        return fetched + self.console + self.violations + self.dialogs


class Browser:
    """One browser process; each visit gets a new tab."""

    def __init__(self, program: str):
        self._folder = tempfile.mkdtemp(prefix="ogive-chromium-")
        to_browser, self._out = (_above(end) for end in os.pipe())
        self._in, from_browser = (_above(end) for end in os.pipe())

        def hand_over():  # in the child: the browser looks for its pipe at 3 and 4
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=hand_over,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self._visit, self._loaded = b"", 0, Visit(), False

    def close(self) -> None:
        """End the browser and remove its folder."""
        try:
            self._call("Browser.close")
            self._process.wait(20)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._folder, ignore_errors=True)

    def visit(
        self,
        page: Path,
        *scripts: str,
        width: int = 1200,
        height: int = 900,
        dark: bool = False,
        picture: Path | None = None,
    ) -> Visit:
        """Open a page from disk, evaluate scripts in it one after another, and close it.

        Args:
            page: the file.
            scripts: expressions; promises are awaited, answers must be JSON-able.
            width, height: of the window.
            dark: whether the reader's system prefers dark.
            picture: where to put a picture of the whole page.
        """
        self._visit = visit = Visit()
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        tab = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self._call(f"{domain}.enable", tab)
        self._call(
            "Emulation.setDeviceMetricsOverride",
            tab,
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", tab, features=scheme)
        visit.requests.clear()
        self._loaded = False
        self._call("Page.navigate", tab, url=page.as_uri())
        self._wait(lambda: self._loaded)
        for script in scripts:
            answer = self._call(
                "Runtime.evaluate",
                tab,
                expression=script,
                awaitPromise=True,
                returnByValue=True,
                userGesture=True,
            )
            assert "exceptionDetails" not in answer, answer["exceptionDetails"]
            visit.answers.append(answer["result"].get("value"))
        # What the page set off (a request, a report) is queued before the answer to this.
        self._call(
            "Runtime.evaluate",
            tab,
            awaitPromise=True,
            expression="new Promise((done) => setTimeout(done, 50))",
        )
        if picture:
            shot = self._call("Page.captureScreenshot", tab, captureBeyondViewport=True)
            picture.write_bytes(base64.b64decode(shot["data"]))
        self._call("Target.closeTarget", targetId=target)
        return visit

    def _call(self, method: str, session: str | None = None, **parameters) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        number, found = self._number, []
        self._wait(
            lambda: found, lambda reply: found.append(reply) if reply.get("id") == number else None
        )
        assert "error" not in found[0], f"{method}: {found[0]['error']}"
        return found[0]["result"]

    def _wait(self, over, also=lambda message: None) -> None:
        until = time.monotonic() + PATIENCE
        while not over():
            left = until - time.monotonic()
            assert left > 0, "the browser did not answer"
            message = self._read(left)
            if message:
                self._note(message)
                also(message)

    def _read(self, seconds: float) -> dict | None:
        if b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], min(seconds, 1.0))
            if ready:
                chunk = os.read(self._in, 1 << 20)
                assert chunk, "the browser ended"
                self._buffer += chunk
            if b"\0" not in self._buffer:
                return None
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, message: dict) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        visit = self._visit
        if method == "Network.requestWillBeSent":
            visit.requests.append(parameters["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            words = " ".join(str(item.get("value")) for item in parameters["args"])
            visit.console.append(f"console.{parameters['type']}: {words}")
        elif method == "Runtime.exceptionThrown":
            visit.console.append(f"exception: {parameters['exceptionDetails']}")
        elif method == "Log.entryAdded":
            entry = parameters["entry"]
            visit.console.append(f"log {entry['level']}: {entry['text']}")
        elif method == "Audits.issueAdded":
            issue = parameters["issue"]
            if issue["code"] == "ContentSecurityPolicyIssue":
                details = issue["details"]["contentSecurityPolicyIssueDetails"]
                visit.violations.append(f"policy: {details['violatedDirective']}")
        elif method == "Page.javascriptDialogOpening":
            visit.dialogs.append(f"dialog: {parameters['message']}")
            self._number += 1
            answer = {
                "id": self._number,
                "method": "Page.handleJavaScriptDialog",
                "sessionId": message["sessionId"],
                "params": {"accept": True},
            }
            os.write(self._out, json.dumps(answer).encode() + b"\0")
        elif method == "Page.loadEventFired":
            self._loaded = True


def _above(descriptor: int) -> int:
    """The descriptor moved to ten or more, out of the way of 3 and 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return moved
