"""Locks and forks: a child inherits every lock as it is, and who holds it may not be there.

Our own locks are made anew in each process. SQLite's can't be, so forks and SQLite are kept apart.

SQLite has mutexes that all connections of a process share, for its memory and its files, each held
for microseconds. A fork copies them as they are: beside a busy spool, one child in fifteen hung at
its first `sqlite3.connect`. So whoever uses SQLite does it within `no_fork()`, and a fork waits
for the end of that, which is a matter of milliseconds.

A fork that bypasses `os.register_at_fork` does not wait; from here nothing can be done about that.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from arthur_relay.system import native
from arthur_relay.system.operating_system import before_fork

WAIT_SECONDS = 2.0
"""How long a fork waits, at most: a disk that hangs must not hang the application."""


class ProcessLock:
    """A re-entrant lock that is not held in a forked child, also when no at-fork hook ran there.

    Args:
        make: What makes one. As a rule that is whatever is current, so that where greenlets are
            threads it keeps greenlets apart.
    """

    __slots__ = ("_locks", "_make")  # eventlet replaces locks that it finds in a `__dict__`

    def __init__(self, make: Callable[[], "threading.RLock"] | None = None) -> None:
        self._locks: dict[tuple[int, object], threading.RLock] = {}
        self._make = make

    def mine(self) -> "threading.RLock":
        """Return this process's lock. Any thread."""
        make = self._make or threading.RLock  # another one when gevent or eventlet have come
        key = os.getpid(), make
        return self._locks.get(key) or self._locks.setdefault(key, make())


class ForkGate:
    """Shut while SQLite is used, on any thread; no thread can fork then.

    The thread that has it shut may fork all the same, and shut it again: a signal handler can come
    at any time, but never in the middle of a call of SQLite's.

    Its lock is the operating system's: greenlets and threads use it, and no greenlet lets another
    one run while it has it shut.

    Args:
        wait_seconds: How long a fork waits, at most.
    """

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._lock = ProcessLock(native.RLock)
        self._forking: dict[int, threading.RLock] = {}
        self._is_hooked = False

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Keep forks waiting. Any thread."""
        if not self._is_hooked:
            self._is_hooked = True
            before_fork(self.before, after_in_parent=self.in_parent)
        with self._lock.mine():
            yield

    def before(self) -> None:
        """Wait until no other thread has it shut, and keep it so."""
        lock = self._lock.mine()
        if lock.acquire(timeout=self._wait_seconds):
            self._forking[native.get_ident()] = lock

    def in_parent(self) -> None:
        """Let the others go on. The child has a lock of its own."""
        lock = self._forking.pop(native.get_ident(), None)
        if lock is not None:
            lock.release()


_gate = ForkGate()


@contextmanager
def no_fork() -> Iterator[None]:
    """Use SQLite within: no other thread forks this process meanwhile. Any thread."""
    with _gate.shut():
        yield
