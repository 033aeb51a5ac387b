"""One daemon a spool directory: a lock that is held for as long as the process lives."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from arthur_relay.errors import SpoolError
from arthur_relay.operating_system import check_daemon, lock_file

if TYPE_CHECKING:
    from pathlib import Path

NAME = "daemon.lock"


def hold_directory(directory: Path) -> int:
    """Make the directory if need be, and lock it for this process.

    Spools in it that processes left which are gone are taken over as always; other processes that
    use the directory without being a daemon don't matter.

    Returns:
        The descriptor that holds the lock: it ends with the process, or `os.close`.

    Raises:
        ConfigurationError: This system can't run a daemon.
        SpoolError: Another daemon has it, or it can't be used.
    """
    check_daemon()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / NAME, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise SpoolError(
            f"The spool's directory {directory} can't be used ({error.strerror}): give one that"
            " this process may write to (ARTHUR_RELAY_SPOOL_DIR)."
        ) from error
    try:
        lock_file(descriptor)
    except OSError:
        pid = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise SpoolError(
            f"Another daemon (process {pid}) has the spool's directory {directory}: stop it, or"
            " give this one its own (ARTHUR_RELAY_SPOOL_DIR)."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
