"""SIGTERM under an ASGI server: the server ends the lifespan, and the lifespan flushes."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import anyio

logger = logging.getLogger("arthur_relay")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from arthur_relay.stats import FlushResult


class Closes(Protocol):
    """A handler or a relay."""

    async def aclose(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - as close
        """Flush and close."""
        ...


def lifespan(
    handler_or_relay: Closes,
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a lifespan for Starlette and FastAPI that flushes at shutdown; a relay is closed.

    uvicorn ends the lifespan on SIGTERM and SIGINT after the last request, and afterwards lets the
    signal kill the process without any `atexit` callback: this is where what is queued gets out.

    Example:
        `app = FastAPI(lifespan=arthur_relay.lifespan(handler))`, or inside a lifespan of your own:
        `async with arthur_relay.lifespan(handler)(app): yield`.
    """

    @asynccontextmanager
    async def manage(_app: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):  # bounded: closing has a deadline
                result = await handler_or_relay.aclose()
            if result.pending and result.timed_out:
                # uvicorn lets a signal kill the process next; this is the last chance to say so.
                logger.warning(
                    "arthur-relay: %d inferences were not delivered in time", result.pending
                )

    return manage
