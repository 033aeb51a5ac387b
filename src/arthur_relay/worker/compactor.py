"""Has what waits compressed beside the loop, while the destination is away."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from arthur_relay.buffers import CompactableBuffer
from arthur_relay.delivery.sender import Sender


class Offloads(Protocol):
    """Has another thread."""

    async def offload(self, function: Callable[[], None]) -> None:
        """Call a function there, and return when it is done."""
        ...


@dataclass(slots=True, eq=False)
class Compactor:
    """A task of the worker's. Loop's thread only.

    Attributes:
        buffer: Where rows wait.
        sender: Knows whether they will wait for long.
        offloader: Does the work.
    """

    buffer: CompactableBuffer
    sender: Sender
    offloader: Offloads
    _nudged: anyio.Event | None = field(default=None, init=False)

    def nudge(self) -> None:
        """Look whether there is something to do by now."""
        if self._nudged is not None and not self.sender.is_healthy:
            with suppress(MemoryError, OSError):  # no memory for the work itself
                self.buffer.pack()
            self._nudged.set()

    async def run(self) -> None:
        """Work until cancelled; a piece that is cancelled is as if it had never begun."""
        while True:
            self._nudged = anyio.Event()
            while self.sender.is_down and (piece := self.buffer.begin_compaction()):
                try:
                    await self.offloader.offload(piece.run)
                except (MemoryError, OSError):
                    break  # as above; with the next row it is tried again
                finally:
                    piece.finish()
            await self._nudged.wait()
