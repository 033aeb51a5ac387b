"""Differences of platforms: forks, file locks, open files, Unix sockets, signals, terminals.

Windows has neither `fork` nor `fcntl`, nor some signals, and keeps open files where they are. Other
modules use all of this through this one, which does what the platform can, or raises an error that
says what it lacks. No other module of this package names a part of the standard library that some
platform lacks.
"""

import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN
from importlib import import_module
from pathlib import Path
from typing import Any

from arthur_relay.errors import ConfigurationError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment] # a module elsewhere

try:
    import termios
except ImportError:
    termios = None  # type: ignore[assignment] # a module elsewhere

try:
    # `Any`, because its functions have types on Windows only.
    msvcrt: Any = import_module("msvcrt")
except ImportError:
    msvcrt = None  # a module of Windows

HAS_FORKS = hasattr(os, "register_at_fork")
"""Whether a process can be copied by `os.fork`."""

HAS_FILE_LOCKS = msvcrt is not None or fcntl is not None
"""Whether a file can be locked such that the lock ends with its process."""

# Elsewhere the command has another structure, if there is one.
HAS_DATA_LOCKS = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")
"""Whether `lock_data` locks."""

# On Windows, asyncio has no Unix sockets, whether or not the module `socket` does.
AF_UNIX: int = 0 if sys.platform == "win32" else getattr(socket, "AF_UNIX", 0)
"""The family of sockets in the file system; 0 where there is none."""

HAS_UNIX_SOCKETS = AF_UNIX != 0
"""Whether Python can connect to a socket in the file system."""

HAS_TERMINALS = termios is not None
"""Whether a terminal can deliver each key as it is typed."""

SIGHUP: int = getattr(signal, "SIGHUP", 0)
"""The signal that asks a process to read its configuration again; 0 where there is none."""

SIGBREAK: int = getattr(signal, "SIGBREAK", 0)
"""Ctrl+Break, by which a process is asked to end on Windows: nobody sends SIGTERM there. Else 0."""

CAN_MOVE_OPEN_FILES = sys.platform != "win32"
"""Whether a file can be renamed, replaced or deleted while it is open."""

NEEDS = "Linux, macOS or a BSD"
"""The systems that have all of this, for error messages."""

# On Windows, a file that is opened by `os.open` is a text file by default.
AS_BYTES = getattr(os, "O_BINARY", 0)
"""For `os.open`: written bytes are not changed. (Python itself closes the file in a child.)"""

# Without the last flag, opening a pipe that somebody put there would wait for its other end.
AS_IT_IS = sum([getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK")])
"""For `os.open`: it waits for no pipe, and follows no link where the system can refuse to."""

CAN_REFUSE_LINKS = hasattr(os, "O_NOFOLLOW")
"""Whether `AS_IT_IS` refuses links."""

HAS_OWNERS = hasattr(os, "geteuid")
"""Whether files have owners, and mode bits that say who may write."""

NO_LIMIT = 2**63 - 1
"""More open files than any process has; `open_files` returns it if there is no limit."""

_DATA_BYTE = 0x3FFFFFFF
"""The byte before those that SQLite locks (`PENDING_BYTE` in its `os.h`); it need not exist."""

_LAST_BYTE = 0x7FFFFFFE
"""What is locked on Windows, where nobody else can read a locked byte: one after all content. The
runtime library takes positions below 2 GiB only."""

# A forked child must not share this memory with its parent. Without forks there is no such flag.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


def before_fork(function: Callable[[], None], *, after_in_parent: Callable[[], None]) -> None:
    """Call functions around each fork of this process, where there are forks."""
    if HAS_FORKS:
        os.register_at_fork(before=function, after_in_parent=after_in_parent)


def after_fork_in_child(function: Callable[[], None]) -> None:
    """Call a function in each forked child, where there are forks."""
    if HAS_FORKS:
        os.register_at_fork(after_in_child=function)


def lock_file(descriptor: int, *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file until `close_locked` or the end of its process.

    Without file locks it does nothing: check `HAS_FILE_LOCKS` where that matters. On Windows no
    lock is shared.

    Args:
        descriptor: The open file.
        shared: Whether others may share the lock.
        wait: Whether to wait until the lock is free.

    Raises:
        OSError: Another process has the lock.
    """
    if msvcrt is not None:
        with _at_last_byte(descriptor):
            _lock_byte(descriptor, wait=wait)
    elif fcntl is not None:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)


def close_locked(descriptor: int) -> None:
    """Close a file that `lock_file` has locked, and so release the lock. Never raises."""
    if msvcrt is not None:
        # At the end of a process, or when the file is closed, Windows itself may take its time.
        with suppress(OSError), _at_last_byte(descriptor):
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    with suppress(OSError):
        os.close(descriptor)


def _lock_byte(descriptor: int, *, wait: bool) -> None:
    while True:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            # It waits for ten seconds, and then reports a deadlock.
            if not wait or error.errno == EACCES:
                raise
        else:
            return


@contextmanager
def _at_last_byte(descriptor: int) -> Iterator[None]:
    """Move an open file's position, from which Windows locks, and move it back."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _LAST_BYTE, os.SEEK_SET)
    try:
        yield
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)


def lock_data(descriptor: int) -> bool:
    """Lock a database's file until it is closed, in addition to SQLite's own locks.

    It locks a byte that SQLite does not use, by a lock of the open file (Linux's `F_OFD_SETLK`):
    closing another descriptor of the process does not end such a lock. Windows needs none: there
    nobody can delete the lock file that a process has open.

    Returns:
        False when another process has the lock; True also where there are no such locks.
    """
    if not HAS_DATA_LOCKS:
        return True
    # `struct flock` of Linux: type, whence, start, length, process.
    order = struct.pack("hhqqi", fcntl.F_WRLCK, 0, _DATA_BYTE, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, order)
    except OSError as error:
        return error.errno not in (EACCES, EAGAIN)
    return True


def check_unix_sockets(what: str) -> None:
    """Check that there are Unix sockets.

    Raises:
        ConfigurationError: There are none; the message begins with `what`.
    """
    if not HAS_UNIX_SOCKETS:
        raise ConfigurationError(f"{what} needs Unix sockets, which this system has not: {NEEDS}.")


def check_daemon() -> None:
    """Check that the daemon can run on this system.

    Raises:
        ConfigurationError: The system lacks what it needs.
    """
    if not (HAS_FILE_LOCKS and HAS_UNIX_SOCKETS and SIGHUP):
        raise ConfigurationError(
            f"The daemon needs {NEEDS}: this system has no file locks, Unix sockets or SIGHUP."
            " The handler and the relay work here without it."
        )


def peer_uid(connection: socket.socket) -> int | None:
    """Return the user id of the process at the other end of a Unix socket, or None.

    Linux reports the user at the moment of `connect`; it can't be forged.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    except OSError:
        return None
    _, uid, _ = struct.unpack("3i", found)
    return int(uid)


def give_to_group(path: Path, group: int) -> None:
    """Set the group of a file; only where `HAS_OWNERS`.

    Raises:
        OSError: This process may not.
        OverflowError: No group has this id.
    """
    os.chown(path, -1, group)


def our_user() -> int:
    """Return the id of the user whose rights this process has; only where `HAS_OWNERS`."""
    return os.geteuid()


def our_groups() -> set[int]:
    """Return the ids of the groups whose rights this process has; only where `HAS_OWNERS`."""
    return {os.getegid(), *os.getgroups()}


def open_files(wanted: int) -> int:
    """Raise the limit of open files to `wanted` if allowed, and return the limit."""
    try:
        import resource  # noqa: PLC0415 - not everywhere
    except ImportError:
        return NO_LIMIT
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return NO_LIMIT
    if limit < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # macOS has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            limit = raised
    return limit


def seconds_since_boot() -> float | None:
    """Return seconds that go on while the machine sleeps, or None where no clock counts them."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return None if boot_time is None else time.clock_gettime(boot_time)


def private_pages(size: int) -> mmap.mmap:
    """Return memory in pages that no other process shares.

    Raises:
        OSError: There is no memory left.
    """
    return mmap.mmap(-1, size, **_PRIVATE)


def group_id(name: str) -> int | None:
    """Return the id of a group of users, or None when there is no such group.

    Raises:
        ConfigurationError: This system has no groups.
    """
    try:
        import grp  # noqa: PLC0415 - only needed for a socket with a group
    except ImportError:
        raise ConfigurationError(f"Groups of users need {NEEDS}.") from None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


@contextmanager
def keys_at_once(descriptor: int) -> Iterator[None]:
    """Let a terminal deliver each key as it is typed, without echo; only if `HAS_TERMINALS`."""
    import tty  # noqa: PLC0415 - it imports termios, which is not everywhere

    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
