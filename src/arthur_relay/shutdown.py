"""Flushing when a process is told to stop: under an ASGI server, and in a bare script."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from arthur_relay.runtime.process_registry import registry
from arthur_relay.sentences import named
from arthur_relay.system.clocks import monotonic
from arthur_relay.system.operating_system import SIGBREAK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager
    from types import FrameType

    from arthur_relay.callback import ArthurCallbackHandler
    from arthur_relay.relay import Relay

logger = logging.getLogger("arthur_relay")

EXIT_STATUS = 128 + signal.SIGTERM
"""The status that a shell reports for a process that SIGTERM ended."""


def lifespan(
    handler_or_relay: ArthurCallbackHandler | Relay,
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a lifespan for Starlette and FastAPI that flushes at shutdown.

    On SIGTERM and SIGINT, uvicorn ends the lifespan after the last request. Then it lets the signal
    kill the process without any `atexit` callback, so what is queued has to be flushed here.

    Args:
        handler_or_relay: A handler, which is flushed, or a relay, which is closed.

    Example: In an application
        ```python
        app = FastAPI(lifespan=arthur_relay.lifespan(handler))
        ```

    Example: In a lifespan of your own
        ```python
        @asynccontextmanager
        async def lifespan(app):
            async with arthur_relay.lifespan(handler)(app):
                yield
        ```
    """

    @asynccontextmanager
    async def manage(_app: Any) -> AsyncIterator[None]:
        import anyio  # noqa: PLC0415 - a bare script has no use for it

        from arthur_relay.relay import Relay, host_of  # noqa: PLC0415 - as above

        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):  # bounded: closing has a deadline
                result = await handler_or_relay.aclose()
            if result.pending and result.timed_out:
                # uvicorn lets a signal kill the process next: this is the last chance to log it.
                it = handler_or_relay
                relay = it if isinstance(it, Relay) else it.relay
                logger.warning(
                    "arthur-relay: %d %s were not delivered in time: raise %s",
                    result.pending,
                    host_of(relay).product.words.many,
                    named("shutdown_timeout_seconds"),
                )

    return manage


def exit_on_sigterm() -> bool:
    """Make SIGTERM raise `SystemExit` in the main thread, so that `finally` and the flush run.

    The flush begins with the signal, in the background, so that nothing else can delay it, such as
    a thread that never ends. While it runs, another SIGTERM changes nothing. When everything is
    delivered, or the flush's deadline has passed, another SIGTERM kills the process.

    Servers like uvicorn and gunicorn handle SIGTERM by themselves and don't need this. An existing
    handler is left alone. If the handler can't be set, the reason is logged. Windows sends no
    SIGTERM: there it does the same for Ctrl+Break.

    Returns:
        Whether the handler is set. It is not outside of the main thread, or if there is another.
    """
    present = signal.getsignal(signal.SIGTERM)
    if isinstance(present, _Exit):
        return True
    obstacle = ""
    if present is not signal.SIG_DFL:
        obstacle = "something else handles SIGTERM, and has to end the process or call close()"
    else:
        try:
            signal.signal(signal.SIGTERM, handler := _Exit())
            if SIGBREAK and signal.getsignal(SIGBREAK) is signal.SIG_DFL:
                signal.signal(SIGBREAK, handler)
        except ValueError:  # `threading` does not know the main thread where threads are greenlets
            obstacle = "only the main thread can do that"
    if obstacle:
        logger.warning("arthur-relay: SIGTERM is not made to flush: %s", obstacle)
    return not obstacle


class _Exit:
    """The handler of the signal."""

    def __init__(self) -> None:
        self._came_in: int | None = None  # the process: a forked child has not got the signal
        self._flushes: list[Future[None]] = []
        self._deadline = 0.0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self._came_in != os.getpid():
            self._came_in = os.getpid()
            self._flushes, seconds = registry().begin_flush_all()
            self._deadline = monotonic() + seconds
            sys.exit(EXIT_STATUS)
        if monotonic() >= self._deadline or all(flush.done() for flush in self._flushes):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
