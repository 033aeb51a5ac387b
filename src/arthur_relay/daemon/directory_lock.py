"""One daemon per spool directory: a lock that is held for as long as the process lives.

The directory itself is locked as well, because a job that cleans up old files may delete the file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from arthur_relay.errors import SpoolError
from arthur_relay.system.file_lock import FileLock
from arthur_relay.system.files import check_directory
from arthur_relay.system.operating_system import check_daemon, lock_file

if TYPE_CHECKING:
    from pathlib import Path

NAME = "daemon.lock"


def hold_directory(directory: Path) -> tuple[FileLock, FileLock]:
    """Create the directory if necessary, and lock it for this process.

    Spool files of dead processes are taken over as always. Processes that use the directory without
    being a daemon don't matter.

    Returns:
        The locks of the file and the directory. They end with the process, or when released.

    Raises:
        ConfigurationError: This system can't run a daemon.
        SpoolError: Another daemon has it, other users may write to it, or it can't be used.
    """
    check_daemon()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shared = check_directory(directory)
        of_directory = FileLock(directory, os.open(directory, os.O_RDONLY))
        try:
            lock = FileLock.take(directory / NAME, shared=shared)
        except OSError:
            of_directory.release()
            raise
    except OSError as error:
        raise SpoolError(
            f"The spool's directory {directory} can't be used ({error.strerror}): give one that"
            " this process alone may write to (ARTHUR_RELAY_SPOOL_DIR)."
        ) from error
    if lock is None or not _is_locked(of_directory):
        of_directory.release()
        if lock is not None:
            lock.release()
        raise SpoolError(
            f"Another daemon (process {_holder(directory / NAME)}) has the spool's directory"
            f" {directory}: stop it, or give this one its own (ARTHUR_RELAY_SPOOL_DIR)."
        )
    os.ftruncate(lock.descriptor, 0)
    os.write(lock.descriptor, f"{os.getpid()}\n".encode())
    return lock, of_directory


def _is_locked(directory: FileLock) -> bool:
    """Lock a directory. Returns False when another daemon has it."""
    try:
        lock_file(directory.descriptor)
    except PermissionError:
        return True  # some file systems can't lock directories
    except OSError:
        return False
    return True


def _holder(path: Path) -> str:
    """Return the id of the process that holds the lock, as it has written it."""
    try:
        with path.open("rb") as file:
            return file.read(20).decode(errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"
