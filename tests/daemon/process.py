"""Runs `arthur-relay serve` in a process of its own, and speaks to it."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests import warm
from tests.waiting import SECONDS, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from arthur_relay.sandbox import ArthurSandbox

PATIENT = {
    "ARTHUR_RELAY_REQUEST_TIMEOUT_SECONDS": "600",
    "ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS": "600",
}
"""Variables with which nothing is given up while a test looks."""


def row(inference_id: str, **data: Any) -> dict[str, Any]:
    """Return a row as a client sends it."""
    return {
        "partner_inference_id": inference_id,
        "inference_timestamp": "2026-06-07T12:00:13.656449+00:00",
        "inference_data": {"input_text": "question", "output_text": "answer", **data},
    }


def arrived(sandbox: ArthurSandbox) -> list[str]:
    """Return the ids of the inferences that a sandbox has, sorted."""
    return sorted(each["partner_inference_id"] for each in sandbox.inferences)


class DaemonProcess:
    """A daemon in a process; leaves nothing behind.

    Its socket is in a directory with a short name, because the names of sockets are bounded.

    Args:
        sandbox: Where it delivers; None where the variables say that.
        directory: Where its spool and its log are.
        *arguments: Of the command.
        variables: More of its environment.
        prefix: A command that ends by running the one given to it.
        before: Code that it runs first.
        for_engine: Whether it delivers to the sandbox's Engine.
        cold: Whether it starts as a user's does; see `tests/warm.py`.
    """

    def __init__(
        self,
        sandbox: ArthurSandbox | None,
        directory: Path,
        *arguments: str,
        variables: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        before: str = "",
        for_engine: bool = False,
        cold: bool = False,
    ) -> None:
        self._sockets = tempfile.TemporaryDirectory(prefix="arthur-")
        self.socket = Path(self._sockets.name) / "relay.sock"
        self.spool = directory / "spool"
        self._log = directory / f"daemon-{time.monotonic_ns()}.log"
        arthur: dict[str, str] = {}
        if sandbox is not None:
            arthur = sandbox.engine_environment() if for_engine else sandbox.environment()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ARTHUR")},
            **arthur,
            "ARTHUR_RELAY_SPOOL_DIR": str(self.spool),
            "ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS": "0.01",
            "ARTHUR_RELAY_RETRY_MAX_SECONDS": "0.05",
            "ARTHUR_RELAY_BREAKER_MAX_SECONDS": "0.1",
            "ARTHUR_RELAY_DAEMON_SOCKET": str(self.socket),
            "PYTHONPATH": os.pathsep.join(sys.path),
            **(variables or {}),
        }
        with self._log.open("wb") as log:
            self.process = warm.python(
                f"{before}\nimport arthur_relay.cli\narthur_relay.cli.main()",
                "serve",
                *arguments,
                environment=self.environment,
                prefix=prefix,
                # What runs first may have to come before whatever is imported.
                cold=cold or bool(before),
                stdout=log,
                stderr=log,
            )
        self._clients: list[httpx.Client] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._clients:
            client.close()
        self._stop()
        self._sockets.cleanup()

    def _stop(self) -> None:
        """End it by signals, a second one where the first has it wait, and at last by force."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0 if number is signal.SIGTERM else SECONDS)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text(encoding="utf-8")

    def wait_until_ready(self) -> Self:
        """Wait until it says that it is ready."""
        self.wait_for_log('"message": "ready: ')
        return self

    def wait_for_log(self, text: str) -> None:
        """Wait until a text is in its log."""
        wait_for(lambda: text in self.log or self.process.poll() is not None)
        assert text in self.log, self.log

    def client(self, url: str | None = None, **options: Any) -> httpx.Client:
        """Return a client, of the socket unless an address is given."""
        if url is None:
            options["transport"] = self.transport()
        elif not url.startswith("https:"):
            options["verify"] = False  # else it loads the certificates of all authorities
        client = httpx.Client(base_url=url or "http://localhost", timeout=SECONDS, **options)
        self._clients.append(client)
        return client

    def transport(self) -> httpx.HTTPTransport:
        """Return the way to its socket."""
        return httpx.HTTPTransport(uds=str(self.socket), verify=False)

    def address(self, what: str) -> str:
        """Return the TCP address that its log names behind some words."""
        self.wait_for_log('"message": "ready: ')
        found = re.search(re.escape(what) + r" (\S+:[0-9]+)", self.log)
        assert found is not None, self.log
        return found[1]

    def age_rows(self, seconds: float) -> None:
        """Let the rows in the spool have waited for longer; the process must be over."""
        assert self.process.poll() is not None
        aged = 0
        for path in self.spool.glob("*.spool"):
            with closing(sqlite3.connect(path)) as connection, connection:
                statement = "UPDATE rows SET stored_at = stored_at - ?"
                aged += connection.execute(statement, (seconds,)).rowcount
        assert aged, "there are no rows"

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, number: signal.Signals | None = signal.SIGTERM) -> int:
        """End it by a signal, and return its status."""
        if number is not None:
            self.send_signal(number)
        return self.process.wait(SECONDS)
