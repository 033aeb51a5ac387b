"""The worker's thread: start, wake-up, restart, end. Without work there is no thread."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Protocol

import anyio

from arthur_relay.destinations.http import import_client
from arthur_relay.errors import RelayError, safe_traceback, unable_to_start
from arthur_relay.runtime.daemon_thread_executor import DaemonThreadExecutor
from arthur_relay.runtime.event_loop import RelayEventLoop
from arthur_relay.system import native, worker_logs
from arthur_relay.system.back_off import ceiling_seconds
from arthur_relay.system.clocks import monotonic
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.runtime")

FIRST_RESTART_SECONDS = 0.1
LONGEST_RESTART_SECONDS = 60.0
"""The wait before a worker that died is restarted; doubled while it keeps dying."""

JOIN_SECONDS = 0.5
"""How long a cancelled worker may take to end before it is abandoned."""


READY_SECONDS = 5.0
"""How long a relay's constructor waits for the worker's imports; they usually take 0.1 s."""


class Idleness(Protocol):
    """Decides whether the thread may end when there was no work for a while."""

    def has_work(self) -> bool:
        """Return whether there is work after all. Any thread."""
        ...

    def let_go(self) -> bool:
        """Let new work wake the runtime from now on. Returns whether the thread may end."""
        ...

    def take_back(self) -> None:
        """Undo `let_go`, because a thread is about to start. Any thread; no lock, never raises."""
        ...

    def stay_asleep(self) -> None:
        """Let the next capture wake the runtime again, because no thread could be started."""
        ...


class Job(Protocol):
    """The work of the thread."""

    async def run(self, ready: Callable[[], None]) -> bool:
        """Work, and let the thread end by returning.

        Args:
            ready: Called when everything that it needs is imported.

        Returns:
            Whether it ends because it has nothing to do: then a wake-up runs it again, in another
            thread.
        """
        ...

    def wake(self) -> None:
        """Look for work. Called on the loop's thread."""
        ...


class Runtime:
    """Runs a job on an anyio loop in a daemon thread, again if it dies.

    Args:
        context: The context variables of the thread; none when None.

    Attributes:
        idleness: Decides whether the thread may end when there is no work; None if it never may.
        restarts: How often the job died of an exception and was run again.
    """

    def __init__(self, context: Context | None = None) -> None:
        self.idleness: Idleness | None = None
        self._context = context
        # Held while a thread starts or ends, never by a capture. Re-entrant, because a signal
        # handler may close the relay that the interrupted code is closing.
        self._turnover = native.RLock()
        self._at_rest = False
        self._is_starting = False
        self._make_threads()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scope: anyio.CancelScope | None = None
        self._job: Job | None = None
        self._cancelled = False
        self._ready = native.Event()
        self._start_error: BaseException | None = None
        # Held while the worker runs or waits for its restart; releasing it ends the wait. Unlike an
        # event's `set`, a signal handler may do that while the same call is being made.
        self._nap = native.Lock()
        self._born_at = 0.0
        self._working = False
        self._deaths_in_a_row = 0
        self.restarts = 0

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller is the worker's thread, which must not wait for itself."""
        return self._thread.ident == native.get_ident()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_at_rest(self) -> bool:
        """Whether there is no thread because there is no work; the next wake-up starts one."""
        return self._at_rest

    def start(self, job: Job) -> None:
        """Start the thread.

        Args:
            job: The job that the thread runs and a wake-up wakes.

        Raises:
            ConfigurationError: No thread can be started. A later call may work.
        """
        with self._turnover:
            if self._is_starting or self._thread.is_alive():
                return  # a signal handler calls this in the middle of a start
            self._is_starting = True
            try:
                self._job = job
                if native.is_patched():
                    import_client()
                    worker_logs.start()
                self._start_threads()
            except RuntimeError as error:
                raise unable_to_start(error) from error
            finally:
                self._is_starting = False

    def end_rest(self) -> bool:
        """Let no thread start any more, if there is no thread and no work. Any thread.

        Returns:
            Whether there was neither.
        """
        with self._turnover:
            if self.idleness is None or not self._at_rest or self.idleness.has_work():
                return False
            self._cancelled = True
            return True

    def _make_threads(self) -> None:
        main = self._main if self._context is None else partial(self._context.run, self._main)
        self._resolver = DaemonThreadExecutor("arthur-relay-resolver")
        self._compressor: DaemonThreadExecutor | None = None
        self._thread = native.BackgroundThread(main, "arthur-relay")

    def _start_threads(self) -> None:
        try:
            self._resolver.start()
            self._thread.start()
        except BaseException:
            self._resolver.stop()
            self._make_threads()  # a thread can be started once
            raise

    def wait_until_ready(self) -> BaseException | None:
        """Wait until the worker has imported what it needs, for `READY_SECONDS` at most.

        If the process forked during the import, the child would inherit a module lock that nobody
        ever releases.

        Returns:
            The error that the worker died of before it was ready, or None.
        """
        self._ready.wait(READY_SECONDS)
        return self._start_error

    @property
    def is_running(self) -> bool:
        """Whether the worker runs or is at rest; False while it waits for a restart. Any thread."""
        return self._at_rest or (self._working and self._thread.is_alive())

    def hurry(self) -> None:
        """Wake the worker, also from its wait before a restart. Any thread; never blocks."""
        with suppress(RuntimeError):  # it is released already
            self._nap.release()
        self.wake()

    def wake(self) -> None:
        """Wake the job. Any thread; never blocks, never raises."""
        loop, job = self._loop, self._job
        if loop is None or job is None:
            if self._at_rest:
                self._wake_from_rest()
            return  # the worker looks for work when it starts
        try:
            loop.call_soon_threadsafe(job.wake)
        except RuntimeError:
            return  # the loop is closed: the worker is being restarted, or has ended

    def call(self, function: Callable[[], object]) -> bool:
        """Have the loop call a function. Any thread; never blocks.

        Returns:
            Whether there is a loop.
        """
        loop = self._loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:  # it is closed
            return False
        return True

    def cancel(self) -> None:
        """Cancel the worker for good. Any thread."""
        self._cancelled = True
        with suppress(RuntimeError):
            self._nap.release()
        loop, scope = self._loop, self._scope
        if loop is not None and scope is not None:
            try:
                loop.call_soon_threadsafe(scope.cancel)
            except RuntimeError:
                return  # it has ended already

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end. Returns whether it has ended."""
        if self._thread.ident is not None and not self.is_this_thread:
            self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    async def offload(self, function: Callable[[], None]) -> None:
        """Call a function in another thread; on the loop if no thread can be started any more."""
        if self._compressor is None:
            compressor = DaemonThreadExecutor("arthur-relay-compressor")
            try:
                compressor.start()  # few processes ever need it
            except RuntimeError:
                function()
                return
            self._compressor = compressor
        await self._compressor.call(function)

    def _wake_from_rest(self) -> None:
        """Have the threads started. Any thread, signal handler or finaliser; takes no lock.

        `threading` has locks, and a finaliser may run while its own thread holds them. So a thread
        that `threading` does not know starts the others.
        """
        idleness = self.idleness
        if self._cancelled or idleness is None:
            return
        idleness.take_back()
        try:
            native.start_new_thread(self._start_again, ())
        except RuntimeError:  # no thread can be started now
            idleness.stay_asleep()

    def _start_again(self) -> None:
        with self._turnover:
            idleness = self.idleness
            if self._cancelled or idleness is None or not self._at_rest:
                return
            idleness.take_back()  # again, because `_goes_to_rest` may have undone it
            self._make_threads()
            try:
                self._start_threads()
            except RuntimeError:
                # Once the main thread has ended, Python 3.12 starts no more threads, but the last
                # captures are still to be sent. This thread runs, so it becomes the worker.
                self._thread.adopt_caller()
            self._at_rest = False
        if self.is_this_thread:
            self._thread.run()

    def _goes_to_rest(self) -> bool:
        """End the threads, unless there is work again. Returns whether they end."""
        idleness = self.idleness
        if idleness is None:
            return False
        with self._turnover:
            # Set first: a capture reads it last, so either we see the capture or it sees this.
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
            while self._run_once():
                pass
        finally:
            with self._turnover:
                if self.is_this_thread and not self._at_rest:  # else they ended, or are new ones
                    self._stop_side_threads()

    def _run_once(self) -> bool:
        """Run the worker once, and return whether to run it again, whatever it died of.

        It may die of more than an `Exception`: another thread can have one raised here, and a
        function of the application that is called here may exit.
        """
        with suppress(BaseException):  # a second one, while the first is logged
            try:
                has_no_work = self._live()
            except BaseException as error:  # noqa: BLE001 - see above
                self._wait_for_restart(error)
            else:
                if not has_no_work or self._goes_to_rest():
                    return False
        return not self._cancelled

    def _live(self) -> bool:
        """Run the worker once, and return whether it ended for lack of work."""
        self._nap.acquire(blocking=False)
        self._born_at = monotonic()
        try:
            if native.is_patched():
                return self._run_loop()
            return anyio.run(
                self._supervised,
                backend="asyncio",
                backend_options={"loop_factory": partial(RelayEventLoop, self._resolver)},
            )
        finally:
            self._loop = self._scope = None

    def _run_loop(self) -> bool:
        """Do what `anyio.run` does without `threading`, whose locks are for greenlets here."""
        loop = RelayEventLoop(self._resolver)
        try:
            return loop.run_until_complete(self._supervised())
        finally:
            with suppress(Exception):
                loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _supervised(self) -> bool:
        self._loop = asyncio.get_running_loop()
        job = self._job
        assert job is not None, "start was given it"
        with anyio.CancelScope() as self._scope:
            if self._cancelled:
                return False
            self._working = True
            try:
                return await job.run(self._ready.set)
            finally:
                self._working = False
        return False

    def _wait_for_restart(self, error: BaseException) -> None:
        """Log what the worker died of, and wait before its restart."""
        self.restarts += 1
        if not self._ready.is_set():
            self._start_error = error
            self._ready.set()
        # If a log handler of the application raises, the worker restarts all the same.
        with suppress(Exception):
            # Our own errors say what to do; where they were raised helps nobody.
            cause = str(error) if isinstance(error, RelayError) else safe_traceback(error)
            logger.error("arthur-relay: the worker died and is started again: %s", cause)
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
