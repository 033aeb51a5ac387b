"""Has what waits compressed beside the loop, while the destination is away."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import anyio

from arthur_relay.buffers import CompactableBuffer
from arthur_relay.delivery.sender import Sender

Offload = Callable[[Callable[[], None]], Awaitable[None]]
"""Calls a function in another thread and returns when it is done."""


@dataclass(slots=True, eq=False)
class Compactor:
    """A task of the worker's. Loop's thread only.

    Attributes:
        buffer: Where rows wait.
        sender: Knows whether they will wait for long.
        offload: Where the work is done.
    """

    buffer: CompactableBuffer
    sender: Sender
    offload: Offload
    _nudged: anyio.Event | None = field(default=None, init=False)

    def nudge(self) -> None:
        """Look whether there is something to do by now."""
        if self._nudged is not None and not self.sender.goes_well:
            with suppress(MemoryError, OSError):  # no memory for the work itself
                self.buffer.pack()
            self._nudged.set()

    async def run(self) -> None:
        """Work until cancelled; a piece that is cancelled is as if it had never begun."""
        while True:
            self._nudged = anyio.Event()
            while self.sender.is_down and (piece := self.buffer.begin_compaction()):
                try:
                    await self.offload(piece.run)
                except (MemoryError, OSError):
                    break  # as above; with the next row it is tried again
                finally:
                    piece.finish()
            await self._nudged.wait()
