"""A window: so many bytes are on their way at once; all else waits its turn."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(slots=True, eq=False)
class Window:
    """Lets in so many bytes at once, in the order in which they came. For one loop.

    Attributes:
        limit_bytes: The most bytes; what is larger goes alone.
        is_narrow: Whether only one goes at a time, as a probe.
    """

    limit_bytes: int
    is_narrow: bool = False
    _used: int = field(default=0, init=False)
    _waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque, init=False)

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait for room, and have it for the block."""
        if self._waiting or not self._fits(size):
            await self._wait(size)
        else:
            self._used += size
        try:
            yield
        finally:
            self._used -= size
            self.let_in()

    def let_in(self) -> None:
        """Let in what fits now; also to be called when it is no longer narrow."""
        while self._waiting and self._fits(self._waiting[0][0]):
            size, ready = self._waiting.popleft()
            if not ready.done():
                self._used += size
                ready.set_result(None)

    async def _wait(self, size: int) -> None:
        ready = asyncio.get_running_loop().create_future()
        self._waiting.append((size, ready))
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():  # it was let in, and can't go any more
                self._used -= size
            self.let_in()
            raise

    def _fits(self, size: int) -> bool:
        if self._used == 0:
            return True
        return not self.is_narrow and self._used + size <= self.limit_bytes
