"""Notifies systemd (sd_notify) and takes its sockets. Without systemd it does nothing.

See sd_notify(3) and sd_listen_fds(3): a datagram of `NAME=value` lines, and descriptors from 3 on.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arthur_relay.errors import SettingsError
from arthur_relay.system.operating_system import AF_UNIX

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_DESCRIPTOR = 3


@dataclass(frozen=True, slots=True)
class Notifier:
    """Notifies the service manager, if there is one. Never raises.

    Attributes:
        address: The manager's socket, a path or an abstract name with `@`; None without one.
    """

    address: str | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Notifier:
        """Return a notifier for the socket that the environment names."""
        return cls(environment.get("NOTIFY_SOCKET") or None)

    def ready(self, status: str) -> None:
        """Report that the start, or a reload, has finished."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Report the status in one line."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Report that a reload begins; `ready` ends it. The time distinguishes it from others."""
        now = time.monotonic_ns() // 1000  # on Linux it is the clock that systemd asks for
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, status: str) -> None:
        """Report that the shutdown has begun."""
        self._send("STOPPING=1", f"STATUS={status}")

    def watchdog(self) -> None:
        """Report that the daemon is alive."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self.address is None:
            return
        # An abstract socket's name begins with NUL, which no environment can hold.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0)  # a manager that does not read must not block us
            sender.sendto("\n".join(lines).encode(), address)


def watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """Return half the watchdog's interval for a process, or None without a watchdog."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 2_000_000 if microseconds > 0 else None


def passed_sockets(
    environment: Mapping[str, str], pid: int
) -> tuple[list[socket.socket], list[socket.socket]]:
    """Return the listening sockets that the service manager has opened: Unix ones and TCP ones.

    Raises:
        SettingsError: One is neither, or the environment is invalid; then all are closed.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return [], []
    given = environment.get("LISTEN_FDS", "0")
    if not (given.isascii() and given.isdigit() and len(given) < 5):
        raise SettingsError(f"LISTEN_FDS is {given!r}, which is no number of sockets.")
    found: list[socket.socket] = []
    problem = ""
    try:
        for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(given)):
            os.set_inheritable(descriptor, False)  # noqa: FBT003 - it has no name
            found.append(socket.socket(fileno=descriptor))
    except OSError as error:
        problem = f"no socket ({error.strerror})"
    if any(each.family not in _FAMILIES or each.type != socket.SOCK_STREAM for each in found):
        problem = "neither a Unix nor a TCP socket"
    if problem:
        for each in found:
            each.close()
        raise SettingsError(
            f"The service manager passes {problem}: use ListenStream= in the socket's unit."
        )
    unix = [each for each in found if each.family == AF_UNIX]
    return unix, [each for each in found if each not in unix]


_FAMILIES = (AF_UNIX, socket.AF_INET, socket.AF_INET6)
