"""The thread that the worker runs in: start, wake-up, restart, end, process exit, fork.

The one registry of the package is here: which runtimes live in this process, so that its exit
can close them within one deadline, and a fork can forget them.
"""

import asyncio
import atexit
import os
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Protocol
from weakref import WeakSet

import anyio

from arthur_relay import native, worker_logs
from arthur_relay.destinations.http import import_client
from arthur_relay.errors import without_texts
from arthur_relay.forks import ProcessLock
from arthur_relay.pipeline.exits import hook_exits
from arthur_relay.pipeline.resolver import RelayLoop
from arthur_relay.pipeline.side_thread import SideThread
from arthur_relay.settings import RelaySettings
from arthur_relay.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.runtime")

FIRST_RESTART_SECONDS = 0.1
LONGEST_RESTART_SECONDS = 60.0
"""The wait before a worker that died is started again; doubled while it keeps dying."""

JOIN_SECONDS = 0.5
"""How long a cancelled worker may take to let go before it is left to itself."""


READY_SECONDS = 5.0
"""How long a relay's constructor waits for the worker's imports, a tenth of a second as a rule."""


class Closable(Protocol):
    """What the registry holds: a relay, seen from below."""

    settings: RelaySettings

    def begin_flush(self) -> "Future[None]":
        """Start a flush without waiting; done when everything captured before is settled."""
        ...

    def begin_close(self) -> float:
        """Start closing without waiting; returns the seconds it may take."""
        ...

    def finish_close(self, deadline: float) -> object:
        """Wait until closed, until `deadline` on `time.monotonic()`'s scale at most."""
        ...

    def forget_parent(self) -> None:
        """Become fresh in a forked child: what is queued and connected is the parent's."""
        ...


class Runtime:
    """Runs a coroutine function on an anyio loop in a daemon thread, again if it dies.

    Args:
        run: What to run; when it returns, the thread ends. It is given what to call when it
            has imported all that it needs.

    Attributes:
        restarts: How often `run` died of an exception and was run again.
    """

    def __init__(self, run: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._run = run
        self._resolver = SideThread("arthur-relay-resolver")
        self._compressor: SideThread | None = None
        self._thread = native.BackgroundThread(self._main, "arthur-relay")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scope: anyio.CancelScope | None = None
        self._notify: Callable[[], None] | None = None
        self._cancelled = False
        self._ready = native.Event()
        self._start_error: BaseException | None = None
        # Held while it lives and naps, so that whoever releases it ends the nap. Unlike an event
        # it can be set by a signal handler that interrupts its being set.
        self._nap = native.Lock()
        self._born_at = 0.0
        self._working = False
        self._deaths_in_a_row = 0
        self.restarts = 0

    @property
    def is_this_thread(self) -> bool:
        """Whether the worker's thread asks: it must not wait for itself."""
        return self._thread.ident == native.get_ident()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self, notify: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            notify: What a wake-up calls, on the loop's thread.
        """
        self._notify = notify
        if native.is_patched():
            import_client()
            worker_logs.start()
        self._resolver.start()
        self._thread.start()

    def wait_until_ready(self) -> BaseException | None:
        """Wait until the worker has imported what it needs, `READY_SECONDS` at most.

        A fork while another thread imports leaves the child with a module lock that no one will
        ever release.

        Returns:
            What the worker died of before it was ready, or None.
        """
        self._ready.wait(READY_SECONDS)
        return self._start_error

    @property
    def is_running(self) -> bool:
        """Whether the worker works: False while it waits to be started again. Any thread."""
        return self._working and self._thread.is_alive()

    def hurry(self) -> None:
        """Wake the worker, also from the wait before a restart. Any thread; never blocks."""
        with suppress(RuntimeError):  # it is released already
            self._nap.release()
        self.wake()

    def wake(self) -> None:
        """Have `notify` called on the loop. Any thread; never blocks, never raises."""
        loop, notify = self._loop, self._notify
        if loop is None or notify is None:
            return  # the worker looks around when it starts
        try:
            loop.call_soon_threadsafe(notify)
        except RuntimeError:
            return  # the loop is closed: it died and comes back, or it is the end

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called on the loop, if there is one. Any thread; never blocks."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(function)

    def cancel(self) -> None:
        """Cancel what runs, for good. Any thread."""
        self._cancelled = True
        with suppress(RuntimeError):
            self._nap.release()
        loop, scope = self._loop, self._scope
        if loop is not None and scope is not None:
            try:
                loop.call_soon_threadsafe(scope.cancel)
            except RuntimeError:
                return  # it has ended by itself

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end. Returns whether it has ended."""
        if self._thread.ident is not None and not self.is_this_thread:
            self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    async def offload(self, function: Callable[[], None]) -> None:
        """Call a function while the loop goes on; here and now if no thread can be had any more."""
        if self._compressor is None:
            compressor = SideThread("arthur-relay-compressor")
            try:
                compressor.start()  # few processes ever need it
            except RuntimeError:
                function()
                return
            self._compressor = compressor
        await self._compressor.call(function)

    def _main(self) -> None:
        try:
            while self._comes_back():
                pass
        finally:
            self._resolver.stop()
            if self._compressor is not None:
                self._compressor.stop()

    def _comes_back(self) -> bool:
        """Live once, and say whether to live again. Whatever it died of, it comes back.

        That includes what is no `Exception`: another thread may have had it raised here, and so
        may have a function of the application's that is called here and exits.
        """
        with suppress(BaseException):  # the next one, while the log was told of the first
            try:
                self._live()
            except BaseException as error:  # noqa: BLE001 - see above
                self._rest_in_peace(error)
            else:
                return False
        return not self._cancelled

    def _live(self) -> None:
        self._nap.acquire(blocking=False)
        self._born_at = monotonic()
        try:
            if native.is_patched():
                self._run_loop()
            else:
                anyio.run(
                    self._supervised,
                    backend="asyncio",
                    backend_options={"loop_factory": partial(RelayLoop, self._resolver)},
                )
        finally:
            self._loop = self._scope = None

    def _run_loop(self) -> None:
        """Do what `anyio.run` does, but ask `threading` for nothing: its locks are greenlets'."""
        loop = RelayLoop(self._resolver)
        try:
            loop.run_until_complete(self._supervised())
        finally:
            with suppress(Exception):
                loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _supervised(self) -> None:
        self._loop = asyncio.get_running_loop()
        with anyio.CancelScope() as self._scope:
            if self._cancelled:
                return
            self._working = True
            try:
                await self._run(self._ready.set)
            finally:
                self._working = False

    def _rest_in_peace(self, error: BaseException) -> None:
        """Tell what it died of, and wait before the next life."""
        self.restarts += 1
        if not self._ready.is_set():
            self._start_error = error
            self._ready.set()
        # A log handler of the application's that raises must not be the end.
        with suppress(Exception):
            logger.error("the worker died and is started again: %s", without_texts(error))
        if monotonic() - self._born_at > LONGEST_RESTART_SECONDS:
            self._deaths_in_a_row = 0
        wait = FIRST_RESTART_SECONDS * 2.0 ** min(self._deaths_in_a_row, 30)
        self._deaths_in_a_row += 1
        if not self._cancelled:
            self._nap.acquire(timeout=min(LONGEST_RESTART_SECONDS, wait))


class Registry:
    """The relays of this process: shared ones by key, and all that have a thread.

    Made once a process; after a fork the child's is empty again.
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._shared: dict[Hashable, Any] = {}
        self._running: dict[int, dict[int, Closable]] = {}
        self._known: WeakSet[Closable] = WeakSet()
        self._hooked_in: int | None = None

    def shared(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the relay of a key, made if there is none. Any thread."""
        with self._lock.mine():
            relay = self._shared.get(key)
            if relay is None:
                relay = self._shared[key] = make()
            return relay

    def unshare(self, relay: object) -> bool:
        """Hand a relay out no more; the next to ask gets a new one.

        Returns:
            Whether it was shared.
        """
        with self._lock.mine():
            keys = [key for key, value in self._shared.items() if value is relay]
            for key in keys:
                del self._shared[key]
            return bool(keys)

    def started(self, relay: Closable) -> None:
        """Remember a relay whose thread runs, to close it when the process exits."""
        with self._lock.mine():
            self._ours()[id(relay)] = relay
            self._known.add(relay)
            if self._hooked_in is None:
                atexit.register(self.close_all)
                os.register_at_fork(after_in_child=self.after_fork)
            if self._hooked_in != os.getpid():
                self._hooked_in = os.getpid()
                hook_exits(self, self.close_all)

    def ended(self, relay: Closable) -> None:
        """Forget a relay whose thread has ended."""
        with self._lock.mine():
            self._ours().pop(id(relay), None)
        self.unshare(relay)

    def running(self) -> list[Closable]:
        """Return the relays whose threads run. Any thread."""
        with self._lock.mine():
            return list(self._ours().values())

    def begin_flush_all(self) -> "tuple[list[Future[None]], float]":
        """Start to flush every relay; returns the flushes, and the seconds they may take."""
        relays = self.running()
        seconds = max((relay.settings.shutdown_timeout_seconds for relay in relays), default=0.0)
        return [relay.begin_flush() for relay in relays], seconds

    def close_all(self) -> None:
        """Close every relay, all within the longest of their shutdown times."""
        relays = self.running()
        start = monotonic()
        try:
            deadline = start + max((relay.begin_close() for relay in relays), default=0.0)
            for relay in relays:
                relay.finish_close(deadline)
        except KeyboardInterrupt:
            for relay in relays:
                relay.begin_close()
                relay.finish_close(start)  # whoever presses Ctrl-C wants no more waiting
            raise

    def after_fork(self) -> None:
        """Make everything fresh in a forked child.

        Shared relays stay shared: each has forgotten the parent and serves the child. So has one
        that was never used in the parent, or no longer: what it took from *its* parent it would
        share with this child else, the next inference's id for instance.
        """
        for relay in list(self._known):
            relay.forget_parent()

    def _ours(self) -> dict[int, Closable]:
        """Return the relays whose threads run in this process, and not in one that forked it."""
        return self._running.setdefault(os.getpid(), {})


_registry = Registry()


def registry() -> Registry:
    """Return this process's registry."""
    return _registry
