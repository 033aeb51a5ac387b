"""The directory that the spools of a host's processes share, and the locks on its files.

Each process has its own file, the first one that no process holds. So a restarted process continues
with its file, and the worker processes of a server can share one setting. Locks end with their
process, in whatever way it ends. Where the system has locks of open files, the spool's file is
locked too. So a job that deletes old files, the lock file among them, does not give one spool to
two processes. Windows renames and deletes no open file: neither can such a job, and so we close
ours first.
"""

import os
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from errno import EACCES
from itertools import count
from pathlib import Path

from arthur_relay.errors import SpoolError
from arthur_relay.sentences import named
from arthur_relay.system.file_lock import FileLock
from arthur_relay.system.files import (
    UntrustedError,
    check_directory,
    check_file,
    make_private,
    open_private,
    quarantine,
    remove_aside,
    too_many_aside,
)
from arthur_relay.system.operating_system import CAN_MOVE_OPEN_FILES, HAS_FILE_LOCKS, lock_data

SUFFIX = ".spool"
FRESH = ".salvaged"
"""The suffix of a damaged file's replacement, until it gets the file's name."""

ASIDE = "-damaged-*.sqlite"
"""The names of damaged files, after the number of the spool's file."""

_LOG = "-wal"
_BESIDE = ("", _LOG, "-shm")
_OURS = (
    SUFFIX,
    ".lock",
    FRESH,
    ".sqlite",
    ".sqlite-journal",
    *(f"{SUFFIX}{ending}" for ending in _BESIDE),
)


@dataclass(slots=True)
class FileClaim:
    """A file that is ours until it is released or the process ends.

    Any thread may call `trouble`; the rest is for the thread that uses the file.

    Attributes:
        path: The file.
        shared: Whether its group may write to it.
    """

    path: Path
    shared: bool
    _lock: FileLock
    _data: int | None
    _file: os.stat_result = field(init=False)
    _log: os.stat_result | None = None

    def __post_init__(self) -> None:
        assert self._data is not None, "it is open"
        self._file = os.fstat(self._data)

    def trouble(self) -> str | None:
        """Return why a later process would not find what is written now, or None when it would.

        It asks the file system, which takes microseconds.
        """
        for kind, path, known in self._known():
            try:
                if not os.path.samestat(known, path.lstat()):
                    return f"its {kind} {path} was replaced"
            except OSError:
                return f"its {kind} {path} is gone"
        if not os.access(self.path.parent, os.W_OK | os.X_OK):
            return f"its directory {self.path.parent} can't be written to"
        return None

    def on_opened(self) -> None:
        """Note the log that SQLite has created for the file."""
        with suppress(FileNotFoundError):
            self._log = Path(f"{self.path}{_LOG}").lstat()

    def on_closed(self) -> None:
        """Note that SQLite has closed the file, after which its log may be deleted."""
        self._log = None

    def renew_lock(self) -> None:
        """Create the lock file again when someone has deleted it. Never raises."""
        with suppress(OSError):
            if self._lock.is_current():
                return
            lock = FileLock.take(self.path.with_suffix(".lock"), shared=self.shared)
            if lock is not None:
                self._lock.release()
                self._lock = lock

    def release(self) -> None:
        """Release the file to other processes; in a forked child, to the parent alone."""
        self._close_data()
        self._lock.release()

    def remove(self) -> None:
        """Delete the file, which must not be open elsewhere."""
        self._let_go()
        for ending in _BESIDE:
            Path(f"{self.path}{ending}").unlink(missing_ok=True)

    def begin_anew(self) -> None:
        """Lock the file that now has this name instead of the old one; create it if necessary.

        Raises:
            OSError: It cannot be created, or another process holds it.
        """
        descriptor = open_private(self.path, shared=self.shared)
        if not lock_data(descriptor):
            os.close(descriptor)
            raise OSError(EACCES, "another process has it")
        self._close_data()
        self._data, self._file = descriptor, os.fstat(descriptor)

    def make_fresh(self) -> Path:
        """Create an empty file that will replace this one, and return its path.

        Raises:
            OSError: It cannot be created.
        """
        fresh = self.path.with_suffix(FRESH)
        for ending in _BESIDE:
            Path(f"{fresh}{ending}").unlink(missing_ok=True)
        make_private(fresh, shared=self.shared)
        return fresh

    def quarantine(self, moment: datetime) -> Path:
        """Give the file, which must not be open elsewhere, a dated name that no relay opens.

        Returns:
            The new path.
        """
        self._let_go()
        return quarantine(self.path, moment, _BESIDE)

    def remove_oldest_aside(self, *, most_bytes: int) -> list[Path]:
        """Delete the oldest damaged files of the directory, to bound their size.

        Args:
            most_bytes: The most bytes that they may take together, unless there is only one.

        Returns:
            The files that were deleted.
        """
        files = self.path.parent.glob(f"*{ASIDE}")
        spools = [path for path in files if path.name.partition("-")[0].isdecimal()]
        removed = too_many_aside(spools, most_bytes=most_bytes)
        for path in removed:
            remove_aside(path)
        return removed

    def put_in_place(self, fresh: Path) -> None:
        """Replace this file by the complete and closed one of `make_fresh`.

        Raises:
            OSError: It cannot be replaced.
        """
        self._let_go()
        fresh.replace(self.path)
        self.begin_anew()

    def finish(self) -> bool:
        """Finish an interrupted replacement. Returns whether there was one."""
        if not _finish_salvage(self.path):
            return False
        self.begin_anew()
        return True

    def _known(self) -> Iterator[tuple[str, Path, os.stat_result]]:
        yield "file", self.path, self._file
        log = self._log
        if log is not None:
            yield "log", Path(f"{self.path}{_LOG}"), log

    def _let_go(self) -> None:
        """Close the file where it could not be renamed or deleted otherwise."""
        if not CAN_MOVE_OPEN_FILES:
            self._close_data()

    def _close_data(self) -> None:
        descriptor, self._data = self._data, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)


class SpoolDirectory:
    """Hands out claims. Any process of the host, any thread.

    Args:
        path: The directory, which is created for its owner only if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shared = False

    def claim(self, but: Container[Path] = ()) -> FileClaim:
        """Claim the first file that no process holds; an earlier process may have left it.

        Args:
            but: Files not to claim.

        Raises:
            SpoolError: No file can be claimed, the directory cannot be written to, or others may
                write to it or to a file in it.
        """
        self.prepare()
        for number in count():
            if self._path / f"{number}{SUFFIX}" in but:
                continue
            try:
                found = self._claim(self._path / f"{number}{SUFFIX}", make=True)
            except OSError as error:
                raise self.unusable(error) from error
            if found is not None:
                return found
        raise AssertionError  # count() does not end

    def orphans(self, ours: Container[Path] = ()) -> Iterator[FileClaim]:
        """Claim the files that no process holds, one by one. Skips those that cannot be claimed.

        Args:
            ours: Files to skip, because to open one that SQLite has open would drop its locks.
        """
        for path in sorted(self._path.glob(f"*{SUFFIX}")):
            if path in ours:
                continue
            found = None
            with suppress(OSError):  # permissions, or too many open files; it is tried again
                found = self._claim(path, make=False)
            if found is not None:
                yield found

    def claim_file(self, path: Path) -> FileClaim | None:
        """Claim an existing file. Returns None when a process holds it.

        Raises:
            SpoolError: It cannot be claimed, or the directory cannot be used.
        """
        self.prepare()
        try:
            path.lstat()
            return self._claim(path, make=False)
        except OSError as error:
            raise self.unusable(error) from error

    def prepare(self) -> None:
        """Create the directory if it does not exist.

        Raises:
            SpoolError: It cannot be created or used.
        """
        path = self._path
        if not HAS_FILE_LOCKS:
            raise SpoolError(
                f"{named('spool_dir')} needs file locks that end with their process, and this"
                " system has none. Without it, what waits is kept in memory."
            )
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._shared = check_spool_directory(path)
        except OSError as error:
            raise self.unusable(error) from error

    def unusable(self, error: OSError) -> SpoolError:
        """Return the error for a directory that cannot be used."""
        if isinstance(error, UntrustedError):
            return SpoolError(
                f"spool_dir {self._path} can't be used: {error.strerror}. The setting is"
                f" {named('spool_dir')}."
            )
        return SpoolError(
            f"spool_dir {self._path} can't be used ({error.strerror}): give a directory that this"
            f" process may write to, by {named('spool_dir')}."
        )

    def _claim(self, path: Path, *, make: bool) -> FileClaim | None:
        lock = FileLock.take(path.with_suffix(".lock"), shared=self._shared)
        if lock is None:
            return None
        try:
            _finish_salvage(path)
            data = open_private(path, os.O_RDWR | (os.O_CREAT if make else 0), shared=self._shared)
        except FileNotFoundError:
            lock.release()
            if make:
                raise
            return None  # its process has deleted it and ended
        except BaseException:
            lock.release()
            raise
        if lock_data(data):
            return FileClaim(path, self._shared, lock, data)
        os.close(data)
        lock.release()
        return None


def check_spool_directory(path: Path) -> bool:
    """Check that only we may write to a directory and to our files in it.

    Returns:
        Whether a group may write to it, on purpose.

    Raises:
        UntrustedError: Others may write.
        OSError: The directory cannot be used.
    """
    shared = check_directory(path)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(EACCES, os.strerror(EACCES))
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.endswith(_OURS):
                with suppress(FileNotFoundError):  # another process is at work here
                    check_file(Path(entry.path), entry.stat(follow_symlinks=False), shared=shared)
    return shared


def _finish_salvage(path: Path) -> bool:
    """Give a replacement the damaged file's name, if the damaged file was already renamed.

    While the damaged file has its old name, the replacement may be incomplete.
    """
    fresh = path.with_suffix(FRESH)
    if not fresh.exists() or path.exists():
        return False
    fresh.replace(path)
    return True
