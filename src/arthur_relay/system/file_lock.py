"""A lock between processes, which ends with its process in whatever way that ends."""

import os
from pathlib import Path
from typing import Self

from arthur_relay.system.files import open_private
from arthur_relay.system.operating_system import AS_IT_IS, close_locked, lock_file


class FileLock:
    """A file that is locked until it is released or the process ends.

    Where the system has no such locks, nothing is locked: see `operating_system.HAS_FILE_LOCKS`.

    Args:
        path: The file.
        descriptor: The file, open and locked; closed by `release`.

    Attributes:
        descriptor: The same.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.descriptor = descriptor
        self._path = path

    @classmethod
    def take(
        cls,
        path: Path,
        flags: int = os.O_CREAT | os.O_RDWR,
        *,
        shared: bool = False,
        wait: bool = False,
    ) -> Self | None:
        """Lock a file that only we can write to, and that still has its name then.

        Args:
            path: The file.
            flags: As for `os.open`.
            shared: Whether its group may write to it as well.
            wait: Whether to wait until it is free.

        Returns:
            The lock, or None when another process has it.

        Raises:
            UntrustedError: It is a link or not a regular file, or others may write to it.
            OSError: It can't be opened, or locked.
        """
        while True:
            found = cls(path, open_private(path, flags, shared=shared))
            try:
                lock_file(found.descriptor, wait=wait)
                if found.is_current():
                    return found
            except OSError:
                found.release()
                if wait:
                    raise
                return None
            except BaseException:
                found.release()
                raise
            found.release()

    @classmethod
    def share(cls, path: Path) -> Self | None:
        """Share the lock of an existing file, so that no other process can lock it for itself.

        On Windows it is not shared, but the caller's alone.

        Returns:
            The lock, or None when another process has locked the file for itself.

        Raises:
            OSError: It can't be opened.
        """
        found = cls(path, os.open(path, os.O_RDONLY | AS_IT_IS))
        try:
            lock_file(found.descriptor, shared=True)
        except OSError:
            found.release()
            return None
        return found

    def is_current(self) -> bool:
        """Return whether the path still names the file that is locked.

        Raises:
            OSError: The file can't be examined.
        """
        try:
            return os.path.samestat(os.fstat(self.descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release it; in a forked child, the parent keeps it. Never raises."""
        close_locked(self.descriptor)
