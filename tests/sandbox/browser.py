"""Debian's Chromium without a window, led over the DevTools protocol through two pipes.

Pipes, because they need no port, no WebSocket library, and end the browser when the tests end.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

if TYPE_CHECKING:
    from types import TracebackType

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # which does not run as root, and these pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
TIMEOUT_SECONDS: Final = 40.0
# The browser reads commands from descriptor 3 and writes to 4; `Popen` can't put them there.
_LAUNCH: Final = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
# Resolves when an expression is true; looks again whenever anything on the page changes.
_UNTIL: Final = """
new Promise((resolve, reject) => {
  const observer = new MutationObserver(look);
  const limit = setTimeout(() => {
    observer.disconnect();
    reject(new Error("never so; the page shows: " + document.body.innerText));
  }, %d);
  function look() {
    if (!(%s)) return;
    clearTimeout(limit);
    observer.disconnect();
    resolve();
  }
  observer.observe(document, {
    subtree: true, childList: true, attributes: true, characterData: true,
  });
  look();
})
"""


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def needed_browser() -> str:
    """The path of a Chromium; without one, skip the test, or fail it where it is needed."""
    path = find_browser()
    if path is None:
        if os.environ.get("TESTS_NEED_CHROMIUM"):
            pytest.fail("TESTS_NEED_CHROMIUM is set, and there is no chromium on the PATH")
        pytest.skip("needs chromium (Debian's package of this name)")
    return path


class Browser:
    """A running browser, inside of the `with` block; one thread may use it.

    Args:
        path: Its program.
        profile: An empty directory, for what it writes.
    """

    def __init__(self, path: str, profile: Path) -> None:
        self._path = path
        self._profile = profile
        self._numbers = itertools.count(1)
        self._unread = b""
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        their_reads, self._writes = os.pipe()
        self._reads, their_writes = os.pipe()
        log = self._profile / "log"
        launch = (sys.executable, "-c", _LAUNCH, str(their_reads), str(their_writes))
        data = f"--user-data-dir={self._profile / 'data'}"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*launch, self._path, *FLAGS, data, "about:blank"],
                pass_fds=(their_reads, their_writes),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        os.close(their_reads)
        os.close(their_writes)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._writes)  # what makes it end
        try:
            self._process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._reads)

    def open(self, url: str, *, width: int = 1280, height: int = 800) -> Tab:
        """Show a page in a new tab, and return when it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, target, session)
        tab.call("Page.enable")
        tab.call("Runtime.enable")
        tab.call("Log.enable")
        tab.call("Emulation.setTimezoneOverride", timezoneId="UTC")
        tab.resize(width, height)
        tab.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired", session)
        return tab

    def call(self, method: str, session: str | None = None, /, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result.

        Raises:
            AssertionError: it failed, or took too long.
        """
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(method)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def wait_for(self, method: str, session: str, telling: str = "") -> None:
        """Return when an event has come that tells of something."""

        def has_come() -> bool:
            return any(
                each["method"] == method and telling in json.dumps(each["params"])
                for each in self.events_of(session)
            )

        while not has_come():
            self._events.append(self._receive(method))

    def events_of(self, session: str) -> list[dict[str, Any]]:
        """What a tab has told so far, oldest first."""
        return [each for each in self._events if each.get("sessionId") == session]

    def _receive(self, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while b"\0" not in self._unread:
            left = deadline - time.monotonic()
            ready = select.select([self._reads], [], [], max(0.0, left))[0]
            piece = os.read(self._reads, 1 << 20) if ready else b""
            assert piece, (what, (self._profile / "log").read_text(errors="replace")[-2000:])
            self._unread += piece
        message, _, self._unread = self._unread.partition(b"\0")
        received: dict[str, Any] = json.loads(message)
        return received


class Tab:
    """One page, as a person sees and uses it."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol for this tab."""
        return self._browser.call(method, self._session, **params)

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def resize(self, width: int, height: int, *, mobile: bool = False, scale: float = 1) -> None:
        """Show the page in another size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )

    def evaluate(self, expression: str) -> Any:
        """What an expression in the page is, as JSON; a promise's value is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, (
            expression,
            answer["exceptionDetails"]["exception"].get("description"),
        )
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Return when an expression is true; the page is looked at whenever it changes."""
        self.evaluate(_UNTIL % (TIMEOUT_SECONDS / 2 * 1000, expression))

    def text(self, selector: str) -> str:
        """What a person reads in the first element of a selector."""
        found: str = self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    def texts(self, selector: str) -> list[str]:
        """What a person reads in each element of a selector."""
        found: list[str] = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.innerText)"
        )
        return found

    def shows(self, selector: str) -> bool:
        """Whether the first element of a selector can be seen."""
        return bool(
            self.evaluate(f"document.querySelector({json.dumps(selector)}).checkVisibility()")
        )

    def click(self, selector: str) -> None:
        """Click in the middle of the first element of a selector, whatever lies over it."""
        x, y = self.evaluate(
            f"""(() => {{
              const element = document.querySelector({json.dumps(selector)});
              element.scrollIntoView({{ block: "center", behavior: "instant" }});
              const box = element.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Replace what is in a field."""
        self.evaluate(
            f"(() => {{ const field = document.querySelector({json.dumps(selector)});"
            " field.focus(); field.select(); })()"
        )
        if text:
            self.call("Input.insertText", text=text)
        else:
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key="Delete",
                    code="Delete",
                    windowsVirtualKeyCode=46,
                )

    def until_failed(self, address: str) -> None:
        """Return when a request to such an address has failed."""
        self._browser.wait_for("Log.entryAdded", self._session, address)

    def errors(self) -> list[str]:
        """What went wrong in the page's script, or is told on its console as an error."""
        found = []
        for event in self._browser.events_of(self._session):
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"]["exception"].get("description", "?"))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
        return found
