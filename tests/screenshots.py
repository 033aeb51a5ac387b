"""Makes the pictures of the documentation from the running programs, so that they can be made anew.

    python -m tests.screenshots docs/images

Takes chromium and tmux, and a minute. The pages are PNGs; the terminal's views are SVGs of what a
terminal of 110 by 30 shows.
"""

from __future__ import annotations

import base64
import io
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import httpx
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from rich.console import Console
from rich.text import Text

from arthur_relay import ArthurCallbackHandler
from arthur_relay.cli.demo.script import answer_to, conversation
from arthur_relay.sandbox import ArthurSandbox
from tests.daemon.process import DaemonProcess, row
from tests.destinations.engine.models import Documents, answer, chat
from tests.sandbox.browser import Browser, Tab, find_browser
from tests.waiting import wait_for

WIDTH: Final = 1280
COLUMNS, ROWS = 110, 30
_PACE_SECONDS = 0.05


def main() -> None:
    """Make all pictures in the directory that is named."""
    if len(sys.argv) != 2 or (browser := find_browser()) is None:
        raise SystemExit((__doc__ or "").splitlines()[2].strip() + " (with chromium installed)")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as temporary,
        Browser(browser, Path(temporary)) as there,
        ArthurSandbox() as sandbox,
    ):
        _sandbox(there, sandbox, directory)
        _daemon(there, sandbox, directory, Path(temporary))
    _demo(directory)


# The sandbox's page.


def _sandbox(browser: Browser, sandbox: ArthurSandbox, directory: Path) -> None:
    _talk(sandbox)
    tab = browser.open(sandbox.url, width=WIDTH, height=760)
    tab.until("document.querySelectorAll('#rows > li').length > 0")
    _save(tab, directory / "sandbox-inferences.png")
    _run_agent(sandbox)
    tab.until("document.querySelectorAll('#trace-rows > li').length > 0")
    tab.evaluate("document.querySelector('#trace-rows .row').click()")
    tab.until("document.querySelectorAll('#trace-rows li li').length > 3")
    tab.evaluate("document.querySelector('#traces').scrollIntoView()")
    _save(tab, directory / "sandbox-trace.png")
    tab.close()


def _talk(sandbox: ArthurSandbox) -> None:
    """Have the conversation of the demo, through the handler."""
    handler = ArthurCallbackHandler.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password
    )
    history: list[BaseMessage] = []
    for said in conversation():
        history.append(HumanMessage(said))
        model = chat(answer(answer_to(said)))
        history.append(model.invoke(history, {"callbacks": [handler]}))
    handler.relay.close()


@tool
def weather(city: str) -> str:
    """Say how the weather is."""
    return f"sunny, 21 °C, in {city}"


def _run_agent(sandbox: ArthurSandbox) -> None:
    """Run an agent that looks something up, through the handler for Arthur Engine."""
    handler = ArthurCallbackHandler.from_engine(
        task_id=sandbox.task_id, base_url=sandbox.url, api_key=sandbox.api_key
    )
    agent = (
        Documents()
        | RunnableLambda(lambda found: weather.invoke({"city": found[0].page_content}))
        | chat(answer("It is sunny in Ulm, with a light wind from the west."))
    )
    run_id = uuid.uuid4()
    agent.invoke(
        "How is the weather in Ulm?",
        {
            "callbacks": [handler],
            "run_id": run_id,
            "run_name": "assistant",
            "metadata": {"session_id": "s1", "user_id": "u1"},
        },
    )
    handler.log_feedback(run_id, liked=True, description="helpful")
    handler.relay.close()


# The daemon's page, and `top`.


def _daemon(browser: Browser, sandbox: ArthurSandbox, directory: Path, temporary: Path) -> None:
    variables = {"ARTHUR_RELAY_DAEMON_METRICS_LISTEN": "127.0.0.1:0"}
    with DaemonProcess(sandbox, temporary, variables=variables) as daemon:
        daemon.wait_until_ready()
        tab = browser.open(
            "http://" + daemon.address("health and metrics are on"), width=WIDTH, height=900
        )
        with _clients(daemon, sandbox), Terminal() as terminal:
            terminal.run(
                f"{shlex.quote(sys.executable)} -m arthur_relay.cli top"
                f" --socket {shlex.quote(str(daemon.socket))}"
            )
            tab.until(_more_than("#sent", 20_000))
            _save(tab, directory / "daemon.png")
            terminal.wait_for("delivered")
            terminal.save(directory / "top.svg", "arthur-relay top")
            sandbox.faults.status(503, times=None)
            tab.until(_more_than("#waiting", 8_000))
            _save(tab, directory / "daemon-outage.png")
            sandbox.faults.reset()
        tab.close()


def _more_than(selector: str, number: int) -> str:
    """Return an expression that is true when an element shows more than a number."""
    shown = f"document.querySelector('{selector}').innerText.replace(/\\D/g, '')"
    return f"Number({shown}) > {number}"


@contextmanager
def _clients(daemon: DaemonProcess, sandbox: ArthurSandbox) -> Iterator[None]:
    """Send rows all the time, as an application of several processes does."""
    over = threading.Event()
    path = f"/api/v3/models/{sandbox.model_id}/inferences"

    def send() -> None:
        with (
            httpx.Client(
                base_url="http://localhost", transport=httpx.HTTPTransport(uds=str(daemon.socket))
            ) as client,
            suppress(httpx.TransportError),
        ):
            while not over.wait(_PACE_SECONDS):
                client.post(path, json=[row(str(uuid.uuid4())) for _ in range(40)])

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


# The terminal.


def _demo(directory: Path) -> None:
    with Terminal() as terminal:
        terminal.run(f"{shlex.quote(sys.executable)} -m arthur_relay.cli demo")
        terminal.wait_for("away 3.")
        terminal.save(directory / "demo.svg", "arthur-relay demo")


class Terminal:
    """A terminal that nobody sees, with one command in it; tmux's, so that it is a real one."""

    def __enter__(self) -> Self:
        self._name = f"arthur-relay-{uuid.uuid4().hex[:8]}"
        return self

    def __exit__(self, *error: object) -> None:
        self._tmux("kill-server", check=False)

    def run(self, command: str) -> None:
        """Start a command."""
        size = ("-x", str(COLUMNS), "-y", str(ROWS))
        self._tmux("new-session", "-d", *size, command)

    def wait_for(self, text: str) -> None:
        """Return when a text can be read in it."""
        wait_for(lambda: text in self._tmux("capture-pane", "-p"))

    def save(self, path: Path, title: str) -> None:
        """Save what it shows."""
        shown = self._tmux("capture-pane", "-e", "-p").rstrip("\n")
        console = Console(record=True, width=COLUMNS, file=io.StringIO())
        console.print(Text.from_ansi(shown), soft_wrap=True)
        svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)
        path.write_text(svg, encoding="utf-8")  # with the fonts of whoever looks, not of a host

    def _tmux(self, *arguments: str, check: bool = True) -> str:
        ended = subprocess.run(
            ["tmux", "-L", self._name, *arguments], capture_output=True, text=True, check=check
        )
        return ended.stdout


def _save(tab: Tab, path: Path) -> None:
    picture: dict[str, Any] = tab.call("Page.captureScreenshot", format="png")
    path.write_bytes(base64.b64decode(picture["data"]))


if __name__ == "__main__":
    main()
