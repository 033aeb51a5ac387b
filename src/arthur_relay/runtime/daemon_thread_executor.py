"""A thread of the relay's own for calls that block, in place of asyncio's thread pool.

`threading._shutdown` makes every `ThreadPoolExecutor.submit` raise before `atexit` callbacks run,
and joins every thread that is no daemon: a pool would be of no use to a relay that delivers while
the process exits, or would keep it from ending.
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
    """Calls functions one after the other, in a daemon thread.

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
            RuntimeError: No thread can be had, as a rule because the interpreter shuts down.
        """
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after the calls it was given; does not wait for it."""
        self._put(None)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return, or raise, what a function does; a cancellation leaves the call to itself.

        Where the thread was not started the function is called here, and the loop waits for it.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            tell: Callable[[], None]
            try:
                tell = partial(_answer, answer, function(*arguments))
            except Exception as error:  # noqa: BLE001 - it is raised where it was called
                tell = partial(_fail, answer, error)
            except BaseException as error:  # noqa: BLE001 - it must end neither thread
                tell = partial(_fail, answer, RuntimeError(type(error).__name__))
            with suppress(RuntimeError):  # the loop was closed: no one waits for the answer
                loop.call_soon_threadsafe(tell)

        if self._thread.ident is None:
            work()
        else:
            self._put(work)
        return await answer

    def _run(self) -> None:
        while self._goes_on():
            pass

    def _goes_on(self) -> bool:
        """Make the calls that wait, and say whether to make more.

        Another thread may have anything raised here, which happens where this one waits as a rule:
        then a wake-up is lost, but no call.
        """
        with suppress(BaseException):
            while self._calls:
                call = self._calls.popleft()
                if call is None:
                    return False
                call()
                del call  # or what it holds would live until the next one
            self._wake_ups.get()
        return True

    def _put(self, call: Callable[[], None] | None) -> None:
        self._calls.append(call)
        self._wake_ups.put(None)


def _answer(answer: "asyncio.Future[T]", result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
