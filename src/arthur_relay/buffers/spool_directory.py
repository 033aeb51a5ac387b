"""The directory that the spools of a host's processes share: whose file is whose.

Each process has a file of its own, the first one that nobody holds: so a process that starts again
goes on where it stopped, and worker processes of one server share a setting. A lock is held by
`flock`, so it is free as soon as its process is gone, however that ended.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from errno import EACCES
from itertools import count
from pathlib import Path

from arthur_relay import native
from arthur_relay.errors import SpoolError
from arthur_relay.files import set_aside
from arthur_relay.operating_system import HAS_FILE_LOCKS, NEEDS, lock_file

SUFFIX = ".spool"
_BESIDE = ("", "-wal", "-shm")


@dataclass(slots=True)
class Claim:
    """A file that is ours until it is released or the process ends.

    Attributes:
        path: The file, which need not be there yet.
    """

    path: Path
    _descriptor: int

    def release(self) -> None:
        """Let others have the file. In a forked child: let the parent alone have it."""
        with suppress(OSError):
            os.close(self._descriptor)

    def remove(self) -> None:
        """Delete the file, which nobody has open."""
        for ending in _BESIDE:
            Path(f"{self.path}{ending}").unlink(missing_ok=True)

    def set_aside(self, moment: datetime) -> Path:
        """Give the file, which nobody has open, a dated name that no relay looks at.

        Returns:
            The new name.
        """
        return set_aside(self.path, moment, _BESIDE)


class SpoolDirectory:
    """Hands out claims. Any process of the host, any thread.

    Args:
        path: The directory; made, for its owner only, when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def claim(self) -> Claim:
        """Claim the first file that nobody holds, which may be one that a process left behind.

        Raises:
            SpoolError: None can be claimed, or it is not a directory that can be written to.
        """
        self.prepare()
        for number in count():
            try:
                found = self._lock(self._path / f"{number}{SUFFIX}")
            except OSError as error:
                raise self.unusable(error) from error
            if found is not None:
                return found
        raise AssertionError  # count() does not end

    def orphans(self) -> Iterator[Claim]:
        """Claim, one by one, the files that nobody holds; one that can't be claimed is no error."""
        for path in sorted(self._path.glob(f"*{SUFFIX}")):
            found = None
            with suppress(OSError):  # its permissions, or no descriptor is left; another time
                found = self._lock(path)
            if found is None:
                continue
            if path.exists():
                yield found
            else:  # its owner has ended well meanwhile
                found.release()

    def prepare(self) -> None:
        """Make the directory, when it is not there.

        Raises:
            SpoolError: It can't be made, or used.
        """
        path = self._path
        if not HAS_FILE_LOCKS:
            raise SpoolError(
                f"spool_dir (or ARTHUR_RELAY_SPOOL_DIR) needs {NEEDS}: this system has no file"
                " locks that end with their process. Without it, what waits is kept in memory."
            )
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(EACCES, os.strerror(EACCES))
        except OSError as error:
            raise self.unusable(error) from error

    def unusable(self, error: OSError) -> SpoolError:
        """Return the error that says that the directory can't be used."""
        return SpoolError(
            f"spool_dir {self._path} can't be used ({error.strerror}): give a directory that this"
            " process may write to (spool_dir, or ARTHUR_RELAY_SPOOL_DIR)."
        )

    def _lock(self, path: Path) -> Claim | None:
        lock = path.with_suffix(".lock")
        descriptor = native.open_file(lock, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            lock_file(descriptor)
        except OSError:
            os.close(descriptor)
            return None
        return Claim(path, descriptor)
