"""Plays Windows or macOS: takes away what they lack, before anything of arthur_relay is imported.

    python -m tests.other_systems windows|macos|this [ARGUMENT...]

runs the tests of the core, memory and spool, in such a process, or on this system as it is;
arguments are pytest's, as `-n 2 --dist loadfile` and names of tests. What is played proves that
nothing asks for what is not there, and that the relay keeps the rules which are played. It
does not prove that it works on a real system.

What is played of Windows: no forks, `fcntl`, Unix sockets, owners of files; few signals; no other
selector than `select`; a monotonic clock that advances every 15.6 ms; files that can't be renamed
or deleted while they are open; names that no file can have; `msvcrt.locking`, whose locks belong to
an open file, are nobody else's, and may not be where the file has content.

The libraries are another matter: what they are on Windows they decide when they are imported. So
they are imported first, and only the module of the relay that asks sees the other `sys.platform`.
"""

from __future__ import annotations

import errno
import importlib
import multiprocessing
import os
import re
import selectors
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VARIABLE = "TESTS_SYSTEM"
"""The variable that names the system which the plugin plays."""

PLUGIN = "tests.other_systems_plugin"
"""The plugin of pytest that plays it."""

CORE = (
    "tests/buffers",
    "--deselect=tests/buffers/spool/test_crashes.py",
    "--deselect=tests/buffers/test_memory_buffer.py::TestBuffer",
    "tests/capture/test_queue.py",
    "tests/dead_letters",
    "tests/relay",
    "tests/runtime",
    "tests/system",
    "tests/worker/test_compaction.py",
    "tests/worker/test_idling.py",
    "tests/worker/test_lifecycle.py",
    "tests/worker/test_lives.py",
    "tests/worker/test_memory.py",
)
"""The tests of what runs in an application's process and touches the system. All of `tests/worker`,
`capture`, `delivery` and `encoding` run too, but most is arithmetic or on a virtual clock."""

LIBRARIES = (
    "anyio._backends._asyncio",
    "dotenv",
    "httpcore",
    "httpx",
    "hypothesis",
    "langchain_core.callbacks",
    "langchain_core.language_models.fake_chat_models",
    "langchain_core.outputs",
    "logging.handlers",
    "msgspec",
    "numpy",
    "orjson",
    "prometheus_client",
    "pydantic_settings",
    "rich.console",
    "rich.live",
    "sqlite3",
    "ssl",
    "starlette.applications",
    "tenacity",
    "trio",
    "typer",
    "uvicorn",
    "uvicorn.protocols.http.httptools_impl",
)
"""What is imported first; an environment may be without some of it."""

ON_NO_WINDOWS = {
    "os": (
        *("O_CLOEXEC", "O_DIRECTORY", "O_DSYNC", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH", "O_SYNC"),
        *("chown", "chroot", "ctermid", "eventfd", "fchdir", "fchmod", "fchown", "fdatasync"),
        *("fork", "forkpty", "fpathconf", "fstatvfs", "getegid", "geteuid", "getgid", "getgroups"),
        *("getloadavg", "getpgid", "getpgrp", "getpriority", "getrandom", "getresuid", "getsid"),
        *("getuid", "getxattr", "killpg", "lchown", "lockf", "major", "makedev", "memfd_create"),
        *("minor", "mkfifo", "mknod", "nice", "openpty", "pathconf", "pidfd_open", "pipe2"),
        *("posix_fadvise", "posix_fallocate", "posix_spawn", "pread", "preadv", "pwrite"),
        *("pwritev", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sched_yield"),
        *("sendfile", "setegid", "seteuid", "setgid", "setpgid", "setpriority", "setsid", "setuid"),
        *("splice", "statvfs", "sync", "sysconf", "tcgetpgrp", "ttyname", "uname", "wait"),
        *("wait3", "wait4", "waitid"),
    ),
    "signal": (
        *("SIGALRM", "SIGBUS", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGIO", "SIGKILL", "SIGPIPE"),
        *("SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGSTOP", "SIGSYS", "SIGTRAP", "SIGTSTP"),
        *("SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGWINCH"),
        *("SIGXCPU", "SIGXFSZ", "alarm", "getitimer", "pause", "pthread_kill"),
        *("pthread_sigmask", "setitimer", "siginterrupt", "sigpending", "sigtimedwait", "sigwait"),
        "sigwaitinfo",
    ),
    "socket": (
        *("AF_UNIX", "MSG_DONTWAIT", "MSG_NOSIGNAL", "SOCK_CLOEXEC", "SOCK_NONBLOCK"),
        *("SO_PEERCRED", "SO_REUSEPORT", "recv_fds", "send_fds"),
    ),
    "mmap": ("MAP_ANONYMOUS", "MAP_PRIVATE", "MAP_SHARED", "PROT_READ", "PROT_WRITE"),
    "time": (
        *("CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "CLOCK_REALTIME", "clock_getres", "clock_gettime"),
        *("clock_gettime_ns", "pthread_getcpuclockid", "tzset"),
    ),
}
"""What no Windows has, of modules that it has."""

NO_MODULES_OF_WINDOWS = (
    *("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"),
)
"""The modules that no Windows has."""

ON_NO_MACOS = {
    "os": (
        *("O_PATH", "eventfd", "fdatasync", "getrandom", "getresuid", "getxattr", "memfd_create"),
        *("pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate", "sched_getaffinity"),
        *("sched_setaffinity", "splice"),
    ),
    "fcntl": ("F_OFD_GETLK", "F_OFD_SETLK", "F_OFD_SETLKW"),
    "signal": ("SIGPOLL", "SIGPWR", "SIGSTKFLT", "sigtimedwait", "sigwaitinfo"),
    "socket": ("MSG_NOSIGNAL", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "SO_PEERCRED"),
    "time": ("CLOCK_BOOTTIME",),
}
"""What no macOS has."""

_F_OFD_SETLK = 37
"""Linux's command, which also stands in for locks of Windows where macOS is played."""

TICK_SECONDS = 0.015625
"""How often the monotonic clock of Windows advances, until Python 3.12."""

_NO_NAME = re.compile(r'[<>:"|?*\x00-\x1f]|[ .]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.I)


def play(system: str) -> None:
    """Make this process one of another system, as far as it can be played, until it ends.

    Args:
        system: "windows" or "macos".
    """
    assert not any(name.startswith("arthur_relay") for name in sys.modules), "it is too late"
    for library in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(library)
    # It is asked for its time by the class of the base, and by the tests' own loops.
    {"windows": _play_windows, "macos": _play_macos}[system]()
    here = sys.platform
    sys.platform = {"windows": "win32", "macos": "darwin"}[system]
    try:
        importlib.import_module("arthur_relay.system.operating_system")
    finally:
        sys.platform = here


def _play_windows() -> None:
    msvcrt = Msvcrt()
    _take_away(ON_NO_WINDOWS)
    for name in NO_MODULES_OF_WINDOWS:
        sys.modules[name] = None  # type: ignore[assignment] # so it can't be imported
    sys.modules["msvcrt"] = msvcrt
    socket.socketpair = _socketpair  # type: ignore[assignment] # it has one form there
    selectors.DefaultSelector = selectors.SelectSelector  # type: ignore[misc,assignment] # a class
    multiprocessing.set_start_method("spawn", force=True)
    shutil._use_fd_functions = False  # type: ignore[attr-defined] # private names, as the next
    shutil._USE_CP_SENDFILE = False  # type: ignore[attr-defined] # else it copies by `sendfile`
    _slow_the_clock()
    sys.addaudithook(_watch_files)


def _play_macos() -> None:
    _take_away(ON_NO_MACOS)
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc,assignment] # a class
    multiprocessing.set_start_method("spawn", force=True)


def _take_away(lacking: dict[str, tuple[str, ...]]) -> None:
    for module, names in lacking.items():
        for name in names:
            if hasattr(found := importlib.import_module(module), name):
                delattr(found, name)
    if hasattr(os, "process_cpu_count"):  # from 3.13 on, made of what was taken away
        os.process_cpu_count = os.cpu_count


def _socketpair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        writer = socket.create_connection(listener.getsockname())
        return listener.accept()[0], writer


def _slow_the_clock() -> None:
    fine, clock_info = time.monotonic, time.get_clock_info

    def monotonic() -> float:
        return fine() // TICK_SECONDS * TICK_SECONDS

    def get_clock_info(name: Any) -> Any:
        found = clock_info(name)
        if name != "monotonic":
            return found
        return SimpleNamespace(**{**vars(found), "resolution": TICK_SECONDS})

    time.monotonic = monotonic
    time.get_clock_info = get_clock_info


class Msvcrt(ModuleType):
    """`msvcrt`, with locks of open files as Linux has them: they end when the file is closed."""

    LK_UNLCK, LK_LOCK, LK_NBLCK, LK_RLCK, LK_NBRLCK = range(5)

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self._fcntl = importlib.import_module("fcntl")

    def locking(self, descriptor: int, mode: int, size: int) -> None:
        """Lock or unlock bytes from the file's position on."""
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        if position > 0x7FFFFFFF:
            raise OSError(errno.EINVAL, "Invalid argument")
        if position < os.fstat(descriptor).st_size:
            raise AssertionError("nobody could read what is locked there")
        tries = 10 if mode in (self.LK_LOCK, self.LK_RLCK) else 1
        for number in range(tries):
            try:
                self._lock(descriptor, mode, position, size)
            except OSError:
                if number == tries - 1:
                    break
                time.sleep(0.01)  # there it is a second
            else:
                return
        # On Windows, `EDEADLOCK` is 36.
        number, text = (36, "Resource deadlock avoided") if tries > 1 else (13, "Permission denied")
        raise OSError(number, text) if number == 36 else PermissionError(number, text)

    def _lock(self, descriptor: int, mode: int, position: int, size: int) -> None:
        kind = self._fcntl.F_UNLCK if mode == self.LK_UNLCK else self._fcntl.F_WRLCK
        if kind == self._fcntl.F_WRLCK and not self._is_writable(descriptor):
            kind = self._fcntl.F_RDLCK  # Linux has no other lock for it
        order = struct.pack("hhqqi", kind, os.SEEK_SET, position, size, 0)
        self._fcntl.fcntl(descriptor, _F_OFD_SETLK, order)

    def _is_writable(self, descriptor: int) -> bool:
        flags: int = self._fcntl.fcntl(descriptor, self._fcntl.F_GETFL)
        return flags & os.O_ACCMODE != os.O_RDONLY


def _watch_files(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what Windows refuses. Called by Python before it asks the system."""
    match event, arguments:
        case ("os.remove", (path, *_)):
            _refuse_open(path)
        case ("os.rename", (source, target, *_)):
            _refuse_open(source)
            _refuse_open(target)
        case ("open", (str() | bytes() | os.PathLike() as path, _, int(flags))):
            if flags & (os.O_WRONLY | os.O_RDWR) and _NO_NAME.search(
                os.path.basename(os.fsdecode(path))  # noqa: PTH119 - it may be bytes
            ):
                raise OSError(errno.EINVAL, "Invalid argument", path)


def is_open(path: Any) -> bool:
    """Return whether this process has a file open, or one in a directory. Needs Linux."""
    return any(_matches(path))


def _refuse_open(path: Any) -> None:
    if is_open(path):
        text = "The process cannot access the file because it is being used"
        raise _InUseError(errno.EACCES, text, path)


def _matches(path: Any) -> Iterator[bool]:
    """Yield, for each open file, whether it is this one, or in this directory."""
    with suppress(OSError):
        status = os.lstat(path)
        inside = os.path.join(os.path.realpath(os.fsdecode(path)), "")  # noqa: PTH118 - as above
        for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are enough
            with suppress(OSError):  # it was that of the list itself
                if stat.S_ISDIR(status.st_mode):
                    yield os.readlink(f"/proc/self/fd/{number}").startswith(inside)  # noqa: PTH115 - it may be no file
                else:
                    yield os.path.samestat(status, os.fstat(int(number)))


class _InUseError(PermissionError):
    """WinError 32."""


def _main(system: str, arguments: Iterable[str]) -> int:
    given = list(arguments)
    if not any(each.startswith("tests/") for each in given):
        given += CORE
    plugin = [] if system == "this" else ["-p", PLUGIN]
    command = [sys.executable, "-m", "pytest", "-q", *plugin, *given]
    return subprocess.run(command, env={**os.environ, VARIABLE: system}, check=False).returncode


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
