"""One daemon a spool directory: a lock that is held for as long as the process lives.

The directory itself is locked as well: a file can be taken away by whoever cleans up what is old.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from arthur_relay.errors import SpoolError
from arthur_relay.system.files import check_directory, open_private
from arthur_relay.system.operating_system import check_daemon, lock_file

if TYPE_CHECKING:
    from pathlib import Path

NAME = "daemon.lock"


def hold_directory(directory: Path) -> tuple[int, ...]:
    """Make the directory if need be, and lock it for this process.

    Spools in it that processes left which are gone are taken over as always; other processes that
    use the directory without being a daemon don't matter.

    Returns:
        The descriptors that hold the lock: it ends with the process, or `os.close`.

    Raises:
        ConfigurationError: This system can't run a daemon.
        SpoolError: Another daemon has it, other users may write to it, or it can't be used.
    """
    check_daemon()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shared = check_directory(directory)
        of_directory = os.open(directory, os.O_RDONLY)
        descriptor = open_private(directory / NAME, shared=shared)
    except OSError as error:
        raise SpoolError(
            f"The spool's directory {directory} can't be used ({error.strerror}): give one that"
            " this process alone may write to (ARTHUR_RELAY_SPOOL_DIR)."
        ) from error
    try:
        lock_file(descriptor)
        with suppress(PermissionError):  # some file systems lock no directories
            lock_file(of_directory)
    except OSError:
        os.close(of_directory)
        pid = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise SpoolError(
            f"Another daemon (process {pid}) has the spool's directory {directory}: stop it, or"
            " give this one its own (ARTHUR_RELAY_SPOOL_DIR)."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor, of_directory
