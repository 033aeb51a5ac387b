"""The common base of a relay and its handlers: `with` closes them, and they can't be copied.

Leaving a block closes them, within the deadline of `close`. Copying returns the same object;
pickling raises an error.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, SupportsIndex

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from arthur_relay.stats import FlushResult


class Closing:
    """Adds `with` and `async with` to a class with `close`, and prevents pickling."""

    @abstractmethod
    def close(self, timeout: float | None = None) -> FlushResult:
        """Flush and close."""
        ...

    @abstractmethod
    async def aclose(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - as close
        """Flush and close without blocking the loop."""
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

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"{name} can't be pickled, because its thread and its connections stay in this process:"
            f" make one in the process that uses it, by {name}.from_env() or .from_credentials(...)"
            " there, instead of sending it. A process that is forked may go on using it."
        )


class Flushing(Closing):
    """Adds `aflush` and `aclose`, which do not block the loop, to a class with `flush`."""

    @abstractmethod
    def flush(self, timeout: float | None = None) -> FlushResult:
        """Flush."""
        ...

    async def aflush(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - as flush
        """Flush without blocking the event loop. A cancellation ends only the wait."""
        try:
            return await in_thread(partial(self.flush, timeout))
        except RuntimeError:  # no thread can be started: flush without waiting for the end
            return self.flush(0.0)

    async def aclose(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - as close
        """Close without blocking the event loop. A cancellation ends only the wait."""
        try:
            return await in_thread(partial(self.close, timeout))
        except RuntimeError:  # no thread can be started: block the loop, so that rows are delivered
            return self.close(timeout)


async def in_thread(function: Callable[[], FlushResult]) -> FlushResult:
    """Call a blocking function in a thread; a cancellation stops the waiting only."""
    # A limiter of its own, so that an application can flush that has used up anyio's threads.
    return await anyio.to_thread.run_sync(
        function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
    )
