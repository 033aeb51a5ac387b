"""Ticks: a counter that any thread advances and coroutines of any loop wait for."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Ticks:
    """A counter to wait on across threads: for the next change, or as a latch from 0 to 1.

    Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def count(self) -> int:
        """How often `advance` was called."""
        return self._count

    def advance(self) -> None:
        """Count one up and wake all that wait."""
        with self._lock:
            self._count += 1
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            # A loop that was closed meanwhile has nobody left to wake.
            with contextlib.suppress(RuntimeError):
                waiter.get_loop().call_soon_threadsafe(_resolve, waiter)

    async def wait_past(self, seen: int) -> int:
        """Wait until the count is above `seen`.

        Args:
            seen: The count that the caller knows of; 0 makes the counter a latch.

        Returns:
            The count now. A cancelled wait leaves nothing behind.
        """
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._count > seen:
                return self._count
            self._waiters.add(waiter)
        try:
            await waiter
        finally:
            with self._lock:
                self._waiters.discard(waiter)
        return self._count


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
