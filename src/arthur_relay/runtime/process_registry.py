"""The one registry of the package: the relays of this process, for its exit and its forks.

The registry keeps a relay alive while its thread runs. A relay without a thread is only referred to
weakly: it starts a thread with its next capture, and is forgotten if nobody else refers to it.
"""

import atexit
import os
import sys
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet, WeakValueDictionary

from arthur_relay.settings import RelaySettings
from arthur_relay.system.clocks import monotonic
from arthur_relay.system.fork_safety import ProcessLock
from arthur_relay.system.operating_system import after_fork_in_child

_MULTIPROCESSING = ("multiprocessing.util", "billiard.util")
"""The second is Celery's fork of the first module."""


class Closable(Protocol):
    """What the registry needs of a relay."""

    settings: RelaySettings

    @property
    def is_at_rest(self) -> bool:
        """Whether it was started in this process and has no thread because it has no work."""
        ...

    def begin_flush(self) -> "Future[None]":
        """Start a flush; the future is done when all earlier captures are settled."""
        ...

    def begin_close(self) -> float:
        """Start closing without waiting; returns the seconds it may take."""
        ...

    def finish_close(self, deadline: float) -> object:
        """Wait until it is closed, or until `deadline` on `time.monotonic()`'s scale."""
        ...

    def forget_parent(self) -> None:
        """Start afresh in a forked child: the queue and the connections are the parent's."""
        ...


class Registry:
    """The relays of this process: shared ones by key, and all that have a thread.

    It keeps those with a thread alive, and those with dead letters in memory. There is one for each
    process; after a fork the child's is empty.
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._shared: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
        self._running: dict[int, dict[int, Closable]] = {}
        self._known: WeakSet[Closable] = WeakSet()
        self._kept: dict[int, Closable] = {}
        self._hooked_in: int | None = None

    def shared(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the relay of a key; make it if there is none. Any thread."""
        with self._lock.mine():
            relay = self._shared.get(key)
            if relay is None:
                relay = self._shared[key] = make()
            return relay

    def unshare(self, relay: object) -> bool:
        """Share a relay no longer; the next caller of `shared` gets a new one.

        Returns:
            Whether it was shared.
        """
        with self._lock.mine():
            keys = [key for key, value in self._shared.items() if value is relay]
            for key in keys:
                del self._shared[key]
            return bool(keys)

    def started(self, relay: Closable) -> None:
        """Register a relay whose thread runs, to close it when the process exits."""
        with self._lock.mine():
            self._ours()[id(relay)] = relay
            self._known.add(relay)
            if self._hooked_in is None:
                atexit.register(self.close_all)
                after_fork_in_child(self.after_fork)
            if self._hooked_in != os.getpid():
                self._hooked_in = os.getpid()
                register_exit_hooks(self, self.close_all)

    def ended(self, relay: Closable) -> None:
        """Forget a relay whose thread has ended."""
        with self._lock.mine():
            self._ours().pop(id(relay), None)
            self._kept.pop(id(relay), None)
        self.unshare(relay)

    def can_spare(self, relay: Closable) -> bool:
        """Return whether a relay without work may end its thread. Any thread.

        Of several relays with the same spool one keeps its thread: it delivers the rows that other
        processes leave in the spool.
        """
        spool = relay.settings.spool_dir
        if spool is None:
            return True
        others = [other for other in self.running() if other is not relay]
        return any(other.settings.spool_dir == spool for other in others)

    def let_go(self, relay: Closable, *, keep: bool = False) -> bool:
        """Register that a relay's thread ends. Returns whether it may end.

        Args:
            relay: The relay; from now on it is kept alive only by those who refer to it.
            keep: Whether the registry keeps referring to it.
        """
        with self._lock.mine():
            if not self.can_spare(relay):
                return False
            if keep:
                self._kept[id(relay)] = relay
            self._ours().pop(id(relay), None)
            return True

    def take_back(self, relay: Closable) -> None:
        """Keep a relay alive again, because its thread is about to start.

        Any thread, signal handler or finaliser may call it: it takes no lock.
        """
        self._ours()[id(relay)] = relay

    def running(self) -> list[Closable]:
        """Return the relays whose threads run. Any thread."""
        with self._lock.mine():
            return list(self._ours().values())

    def _in_use(self) -> list[Closable]:
        """Return the running relays, and those whose threads may come back."""
        with self._lock.mine():
            running = self._ours()
            known = [relay for relay in self._known if id(relay) not in running]
            return [*running.values(), *(relay for relay in known if relay.is_at_rest)]

    def begin_flush_all(self) -> "tuple[list[Future[None]], float]":
        """Start to flush every relay; returns the flushes and the seconds that they may take."""
        relays = self.running()
        seconds = max((relay.settings.shutdown_timeout_seconds for relay in relays), default=0.0)
        return [relay.begin_flush() for relay in relays], seconds

    def close_all(self) -> None:
        """Close every relay, all within the longest of their shutdown times.

        Relays without a thread are closed too, so that later captures are counted as dropped.
        """
        relays = self._in_use()
        start = monotonic()
        try:
            deadline = start + max((relay.begin_close() for relay in relays), default=0.0)
            for relay in relays:
                relay.finish_close(deadline)
        except KeyboardInterrupt:
            for relay in relays:
                relay.begin_close()
                relay.finish_close(start)  # Ctrl-C ends the waiting
            raise

    def after_fork(self) -> None:
        """Make every relay start afresh in a forked child.

        Shared relays stay shared, and serve the child. A relay that the parent never used, or uses
        no longer, starts afresh as well: otherwise it would share the parent's state with this
        child, for instance the next inference's id.
        """
        for relay in list(self._known):
            relay.forget_parent()

    def _ours(self) -> dict[int, Closable]:
        """Return the relays whose threads run in this process, not in the one that forked it."""
        return self._running.setdefault(os.getpid(), {})


_registry = Registry()


def registry() -> Registry:
    """Return this process's registry."""
    return _registry


def register_exit_hooks(owner: object, close: Callable[[], None]) -> None:
    """Have a function called when this process exits without `atexit` callbacks.

    The children of multiprocessing, billiard and Celery exit so. None of these is imported here:
    what is not loaded has not started this process.

    Args:
        owner: The function is called only while this object lives.
        close: May be called more than once.
    """
    for util in filter(None, map(sys.modules.get, _MULTIPROCESSING)):
        finalize = partial(util.Finalize, None, close, exitpriority=100)
        finalize()
        # A child process first forgets these, after its main module was imported: that may have
        # made a relay already.
        util.register_after_fork(owner, partial(_finalize_again, finalize))
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        # The processes of Celery's pool end by `os._exit`, and announce it by this signal only.
        signals.worker_process_shutdown.connect(
            partial(_shut_down, close), weak=False, dispatch_uid=__name__
        )


def _finalize_again(finalize: Callable[[], object], _owner: object) -> None:
    finalize()


def _shut_down(close: Callable[[], None], **_: object) -> None:
    close()
