"""A daemon in a process of its own, for a measurement."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.waiting import wait_for

if TYPE_CHECKING:
    from types import TracebackType

START_SECONDS = 30.0
END_SECONDS = 30.0
NOWHERE = "http://127.0.0.1:1"
"""An Arthur that is away: nobody listens there."""


def cpu_seconds(pid: int) -> float:
    """CPU time of a process since its start, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class DaemonProcess:
    """Serves on a Unix socket from `with` to its end.

    Args:
        python: The interpreter.
        environment: What a measuring process gets.
        arthur: Arthur's address.
        **variables: More of its environment.
    """

    def __init__(
        self, python: str, environment: dict[str, str], arthur: str, **variables: str
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="arthur-")
        directory = Path(self._directory.name)
        self.socket = directory / "relay.sock"
        self._process = subprocess.Popen(
            [python, "-m", "arthur_relay.cli", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=subprocess.DEVNULL,
            env={
                **environment,
                "ARTHUR_ENDPOINT_URL": arthur,
                "ARTHUR_API_KEY": "key",
                "ARTHUR_RELAY_SPOOL_DIR": str(directory / "spool"),
                "ARTHUR_RELAY_SPOOL_BYTES": str(1 << 34),
                "ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS": "0.1",
                "ARTHUR_RELAY_DAEMON_SOCKET": str(self.socket),
                **variables,
            },
        )

    def __enter__(self) -> Self:
        try:
            wait_for(self._has_started, START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def _has_started(self) -> bool:
        """Whether it serves.

        Raises:
            OSError: It has ended.
        """
        if (status := self._process.poll()) is not None:
            raise OSError(f"the daemon does not start: status {status}")
        return self.socket.exists()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it. Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._directory.cleanup()

    def resident_mib(self) -> float:
        """The memory that it has now."""
        return self._status_mib("VmRSS")

    def peak_mib(self) -> float:
        """The most memory that it has had."""
        return self._status_mib("VmHWM")

    def cpu_seconds(self) -> float:
        """CPU time since its start, user and system."""
        return cpu_seconds(self._process.pid)

    def rows(self) -> dict[str, Any]:
        """What it counts of rows."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(base_url="http://localhost", transport=transport) as client:
            found: dict[str, Any] = client.get("/status").json()["rows"]
        return found

    def _status_mib(self, name: str) -> float:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024
        raise OSError(f"the kernel does not tell {name}: this runs on Linux only")
