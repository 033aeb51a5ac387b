"""What the relay's tests share: inferences, and a destination that waits for the test."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from arthur_relay import Inference, Relay
from arthur_relay.row import Attempt, Batch
from arthur_relay.testing import MemoryDestination

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Memory = tuple[Relay, MemoryDestination]


def inference(**fields: Any) -> Inference:
    return Inference(**{"input_text": "in", "output_text": "out", **fields})


class Gated(MemoryDestination):
    """A destination that answers when the test, in another thread, has opened it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self._opened: Future[None] = Future()

    def open(self) -> None:
        self._opened.set_result(None)

    async def deliver(self, batch: Batch) -> Attempt:
        self.asked.set()
        # Shielded, as a request that is cancelled must not cancel the gate of the others.
        await asyncio.shield(asyncio.wrap_future(self._opened))
        return await super().deliver(batch)


class Job:
    """What a test has a worker's thread run."""

    def __init__(self, run: Callable[[Callable[[], None]], Awaitable[bool]]) -> None:
        self._run = run

    async def run(self, ready: Callable[[], None]) -> bool:
        return await self._run(ready)

    def wake(self) -> None:
        """Do nothing: it does not wait."""
