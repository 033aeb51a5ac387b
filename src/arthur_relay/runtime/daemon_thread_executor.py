"""A daemon thread for blocking calls, instead of asyncio's thread pool.

`threading._shutdown` makes every `ThreadPoolExecutor.submit` raise before `atexit` callbacks run,
and joins every thread that is not a daemon. So a relay that delivers while the process exits could
not use a pool, or the pool's threads would keep the process from ending.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from arthur_relay.system import native

T = TypeVar("T")


class DaemonThreadExecutor:
    """Calls functions in a daemon thread, one after the other.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._calls: deque[Callable[[], None] | None] = deque()
        self._wake_ups: native.SimpleQueue[None] = native.SimpleQueue()
        self._thread = native.BackgroundThread(self._run, name)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: No thread can be started, usually because the interpreter shuts down.
        """
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the calls that it has; does not wait for that."""
        self._put(None)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the thread, and return its result or raise its exception.

        A cancellation ends the wait, not the call. If the thread was not started, the function is
        called here and blocks the loop.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            report: Callable[[], None]
            try:
                report = partial(_set_result, result, function(*arguments))
            except Exception as error:  # noqa: BLE001 - it is raised in the caller
                report = partial(_set_exception, result, error)
            except BaseException as error:  # noqa: BLE001 - it must end neither thread
                report = partial(_set_exception, result, RuntimeError(type(error).__name__))
            with suppress(RuntimeError):  # the loop is closed: nobody waits for the result
                loop.call_soon_threadsafe(report)

        if self._thread.ident is None:
            work()
        else:
            self._put(work)
        return await result

    def _run(self) -> None:
        while self._goes_on():
            pass

    def _goes_on(self) -> bool:
        """Make the waiting calls, and return whether to make more.

        Another thread may have any exception raised here, most likely while this one waits: then a
        wake-up is lost, but no call.
        """
        with suppress(BaseException):
            while self._calls:
                call = self._calls.popleft()
                if call is None:
                    return False
                call()
                del call  # else its arguments would live until the next call
            self._wake_ups.get()
        return True

    def _put(self, call: Callable[[], None] | None) -> None:
        self._calls.append(call)
        self._wake_ups.put(None)


def _set_result(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
