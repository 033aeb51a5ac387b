"""Use as a context manager, sync and async: leaving it closes, within the closing's deadline."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from arthur_relay.stats import FlushResult


class Closing:
    """Adds `with` and `async with` to what can be closed."""

    @abstractmethod
    def close(self, timeout: float | None = None) -> FlushResult:
        """Flush and close."""
        ...

    @abstractmethod
    async def aclose(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - as close
        """Flush and close, without blocking the loop."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):  # bounded: closing has a deadline
            await self.aclose()


async def in_thread(function: Callable[[], FlushResult]) -> FlushResult:
    """Call a blocking function in a thread; a cancellation stops the waiting only."""
    # A limiter of its own: an application that has used up anyio's threads must be able to flush.
    return await anyio.to_thread.run_sync(
        function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
    )
