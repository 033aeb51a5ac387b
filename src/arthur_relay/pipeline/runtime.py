"""The thread that the worker runs in: start, wake-up, restart, end; none while there is no work."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import anyio

from arthur_relay import native, worker_logs
from arthur_relay.back_off import ceiling_seconds
from arthur_relay.clocks import monotonic
from arthur_relay.destinations.http import import_client
from arthur_relay.errors import unable_to_start, without_texts
from arthur_relay.pipeline.resolver import RelayLoop
from arthur_relay.pipeline.side_thread import SideThread
from arthur_relay.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.runtime")

FIRST_RESTART_SECONDS = 0.1
LONGEST_RESTART_SECONDS = 60.0
"""The wait before a worker that died is started again; doubled while it keeps dying."""

JOIN_SECONDS = 0.5
"""How long a cancelled worker may take to let go before it is left to itself."""


READY_SECONDS = 5.0
"""How long a relay's constructor waits for the worker's imports, a tenth of a second as a rule."""


class Idleness(Protocol):
    """What is asked when there has been nothing to do for a while."""

    def has_work(self) -> bool:
        """Whether there is something to do after all. Any thread."""
        ...

    def let_go(self) -> bool:
        """Do without a thread; from now on what comes wakes the runtime. Returns whether it can."""
        ...

    def take_back(self) -> None:
        """Undo that, as a thread is about to start. Any thread; takes no lock, never raises."""
        ...

    def stay_asleep(self) -> None:
        """Have the next that comes wake the runtime again, as no thread could be had."""
        ...


class Runtime:
    """Runs a coroutine function on an anyio loop in a daemon thread, again if it dies.

    Args:
        run: What to run; when it returns, the thread ends. It is given what to call when it
            has imported all that it needs, and returns whether it ends because it has nothing to
            do: then a wake-up runs it again, in another thread.

    Attributes:
        idleness: Who is asked when `run` ends for want of work; None where it never does.
        restarts: How often `run` died of an exception and was run again.
    """

    def __init__(
        self,
        run: Callable[[Callable[[], None]], Awaitable[bool]],
    ) -> None:
        self._run = run
        self.idleness: Idleness | None = None
        # Whoever changes whether there is a thread has this, never whoever captures. Re-entrant,
        # because a signal handler may close what the code that it interrupts is closing.
        self._turnover = native.RLock()
        self._at_rest = False
        self._is_starting = False
        self._make_threads()
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

    @property
    def is_at_rest(self) -> bool:
        """Whether there is no thread because there is no work; the next wake-up starts one."""
        return self._at_rest

    def start(self, notify: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            notify: What a wake-up calls, on the loop's thread.

        Raises:
            ConfigurationError: No thread can be had. It may be tried again.
        """
        with self._turnover:
            if self._is_starting or self._thread.is_alive():
                return  # a signal handler, in the middle of a start
            self._is_starting = True
            try:
                self._notify = notify
                if native.is_patched():
                    import_client()
                    worker_logs.start()
                self._start_threads()
            except RuntimeError as error:
                raise unable_to_start(error) from error
            finally:
                self._is_starting = False

    def end_rest(self) -> bool:
        """Let no thread start any more, if there is none and nothing to do. Any thread.

        Returns:
            Whether that is so.
        """
        with self._turnover:
            if self.idleness is None or not self._at_rest or self.idleness.has_work():
                return False
            self._cancelled = True
            return True

    def _make_threads(self) -> None:
        self._resolver = SideThread("arthur-relay-resolver")
        self._compressor: SideThread | None = None
        self._thread = native.BackgroundThread(self._main, "arthur-relay")

    def _start_threads(self) -> None:
        try:
            self._resolver.start()
            self._thread.start()
        except BaseException:
            self._resolver.stop()
            self._make_threads()  # a thread can be started once
            raise

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
        """Whether the worker works, or would: False while it waits after its death. Any thread."""
        return self._at_rest or (self._working and self._thread.is_alive())

    def hurry(self) -> None:
        """Wake the worker, also from the wait before a restart. Any thread; never blocks."""
        with suppress(RuntimeError):  # it is released already
            self._nap.release()
        self.wake()

    def wake(self) -> None:
        """Have `notify` called on the loop. Any thread; never blocks, never raises."""
        loop, notify = self._loop, self._notify
        if loop is None or notify is None:
            if self._at_rest:
                self._wake_from_rest()
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

    def _wake_from_rest(self) -> None:
        """Have the threads started. Any thread, signal handler and finaliser; takes no lock.

        `threading` has locks, which the caller may hold itself if it is a finaliser. So the start
        is made by a thread that the interpreter alone knows of.
        """
        idleness = self.idleness
        if self._cancelled or idleness is None:
            return
        idleness.take_back()
        try:
            native.start_new_thread(self._start_again, ())
        except RuntimeError:  # none can be had now
            idleness.stay_asleep()

    def _start_again(self) -> None:
        with self._turnover:
            idleness = self.idleness
            if self._cancelled or idleness is None or not self._at_rest:
                return
            idleness.take_back()  # again, for `_goes_to_rest` may have come between
            self._make_threads()
            try:
                self._start_threads()
            except RuntimeError:
                # Once the main thread has ended, Python 3.12 starts no thread any more, and what
                # was captured last is still to be sent. This thread runs, so it is the worker.
                self._thread.adopt_caller()
            self._at_rest = False
        if self.is_this_thread:
            self._thread.run()

    def _goes_to_rest(self) -> bool:
        """End the threads, unless something has come to do. Returns whether they end."""
        idleness = self.idleness
        if idleness is None:
            return False
        with self._turnover:
            # First: who captures looks at it last, so either we see the capture or it sees this.
            self._at_rest = not self._cancelled
            try:
                if self._at_rest and idleness.let_go():
                    if not idleness.has_work():
                        self._stop_side_threads()
                        return True
                    idleness.take_back()
            except BaseException:
                self._at_rest = False
                raise
            self._at_rest = False
            return False

    def _stop_side_threads(self) -> None:
        self._resolver.stop()
        if self._compressor is not None:
            self._compressor.stop()

    def _main(self) -> None:
        try:
            while self._comes_back():
                pass
        finally:
            with self._turnover:
                if self.is_this_thread and not self._at_rest:  # else they have ended, or are others
                    self._stop_side_threads()

    def _comes_back(self) -> bool:
        """Live once, and say whether to live again. Whatever it died of, it comes back.

        That includes what is no `Exception`: another thread may have had it raised here, and so
        may have a function of the application's that is called here and exits.
        """
        with suppress(BaseException):  # the next one, while the log was told of the first
            try:
                has_no_work = self._live()
            except BaseException as error:  # noqa: BLE001 - see above
                self._rest_in_peace(error)
            else:
                if not has_no_work or self._goes_to_rest():
                    return False
        return not self._cancelled

    def _live(self) -> bool:
        """Run it once, and return whether it ended for want of work."""
        self._nap.acquire(blocking=False)
        self._born_at = monotonic()
        try:
            if native.is_patched():
                return self._run_loop()
            return anyio.run(
                self._supervised,
                backend="asyncio",
                backend_options={"loop_factory": partial(RelayLoop, self._resolver)},
            )
        finally:
            self._loop = self._scope = None

    def _run_loop(self) -> bool:
        """Do what `anyio.run` does, but ask `threading` for nothing: its locks are greenlets'."""
        loop = RelayLoop(self._resolver)
        try:
            return loop.run_until_complete(self._supervised())
        finally:
            with suppress(Exception):
                loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _supervised(self) -> bool:
        self._loop = asyncio.get_running_loop()
        with anyio.CancelScope() as self._scope:
            if self._cancelled:
                return False
            self._working = True
            try:
                return await self._run(self._ready.set)
            finally:
                self._working = False
        return False

    def _rest_in_peace(self, error: BaseException) -> None:
        """Tell what it died of, and wait before the next life."""
        self.restarts += 1
        if not self._ready.is_set():
            self._start_error = error
            self._ready.set()
        # A log handler of the application's that raises must not be the end.
        with suppress(Exception):
            logger.error(
                "arthur-relay: the worker died and is started again: %s", without_texts(error)
            )
        if monotonic() - self._born_at > LONGEST_RESTART_SECONDS:
            self._deaths_in_a_row = 0
        wait = ceiling_seconds(
            self._deaths_in_a_row,
            first_seconds=FIRST_RESTART_SECONDS,
            longest_seconds=LONGEST_RESTART_SECONDS,
        )
        self._deaths_in_a_row += 1
        if not self._cancelled:
            self._nap.acquire(timeout=wait)
