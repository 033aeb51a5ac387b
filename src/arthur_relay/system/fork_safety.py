"""Locks and forks: a child inherits each lock in its state, but not the thread that holds it.

Each process creates its own locks. It can't recreate SQLite's, so no fork happens while SQLite is
at work.

SQLite has mutexes for its memory and its files, which all connections of a process share and hold
for microseconds. A fork copies their state: while a spool was busy, one child in fifteen hung at
its first `sqlite3.connect`. So each use of SQLite is within `no_fork()`, and a fork waits until it
ends, which takes milliseconds.

A fork that bypasses `os.register_at_fork` does not wait; nothing here can prevent that.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from arthur_relay.system import native
from arthur_relay.system.operating_system import before_fork

WAIT_SECONDS = 2.0
"""The longest wait of a fork: a hanging disk must not block the application."""


class ProcessLock:
    """A re-entrant lock that is free in a forked child, even if no at-fork hook ran there.

    Args:
        make: Creates a lock. None for the `threading.RLock` of the moment, which works between
            greenlets if gevent or eventlet have replaced threads.
    """

    __slots__ = ("_locks", "_make")  # eventlet replaces locks that it finds in a `__dict__`

    def __init__(self, make: Callable[[], "threading.RLock"] | None = None) -> None:
        self._locks: dict[tuple[int, object], threading.RLock] = {}
        self._make = make

    def mine(self) -> "threading.RLock":
        """Return this process's lock. Any thread."""
        make = self._make or threading.RLock  # gevent or eventlet may replace it
        key = os.getpid(), make
        return self._locks.get(key) or self._locks.setdefault(key, make())


class ForkGate:
    """Blocks the forks of other threads while a thread uses SQLite.

    The thread that has closed the gate may fork, and may close it again: a signal handler can run
    at any time, but never in the middle of a call of SQLite.

    Its lock is the operating system's, because greenlets and threads share it; no greenlet yields
    while it has closed the gate.

    Args:
        wait_seconds: The longest wait of a fork.
    """

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._lock = ProcessLock(native.RLock)
        self._forking: dict[int, threading.RLock] = {}
        self._is_hooked = False

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Make forks wait within the block. Any thread."""
        if not self._is_hooked:
            self._is_hooked = True
            before_fork(self.before, after_in_parent=self.in_parent)
        with self._lock.mine():
            yield

    def before(self) -> None:
        """Wait until no other thread keeps the gate closed, and close it."""
        lock = self._lock.mine()
        if lock.acquire(timeout=self._wait_seconds):
            self._forking[native.get_ident()] = lock

    def in_parent(self) -> None:
        """Open the gate in the parent. The child has a lock of its own."""
        lock = self._forking.pop(native.get_ident(), None)
        if lock is not None:
            lock.release()


_gate = ForkGate()


@contextmanager
def no_fork() -> Iterator[None]:
    """Keep other threads from forking within the block, which uses SQLite. Any thread."""
    with _gate.shut():
        yield
