"""A lock that other processes see, and that ends with its process however that ended."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from arthur_relay.system.files import open_private
from arthur_relay.system.operating_system import AS_IT_IS, lock_file


class FileLock:
    """A file that is locked (`flock`) until it is released, or the process is gone.

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
        """Lock a file that only we can write to; not one that was taken away meanwhile.

        Args:
            path: The file.
            flags: As for `os.open`.
            shared: Whether its group may write to it as well.
            wait: Whether to wait for whoever has it.

        Returns:
            None when another one has it.

        Raises:
            UntrustedError: It is a link, no regular file, or others may write to it.
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
        """Keep others from locking a file that is there, but not from sharing it.

        Returns:
            None when another one has locked it.

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
            OSError: The file system does not say.
        """
        try:
            return os.path.samestat(os.fstat(self.descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others have it. In a forked child: let the parent alone have it. Never raises."""
        with suppress(OSError):
            os.close(self.descriptor)
