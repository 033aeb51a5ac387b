"""Has waiting rows compressed in another thread, while the destination is away."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from arthur_relay.buffers import CompactableBuffer


class Offloads(Protocol):
    """Runs functions in another thread."""

    async def offload(self, function: Callable[[], None]) -> None:
        """Call a function in that thread, and return when it is done."""
        ...


class DeliveryHealth(Protocol):
    """Knows how deliveries go: the sender."""

    @property
    def is_healthy(self) -> bool:
        """Whether the last request was answered as it should be."""
        ...

    @property
    def is_down(self) -> bool:
        """Whether the destination is known to be away."""
        ...


@dataclass(slots=True, eq=False)
class Compactor:
    """Decides when rows are compressed. Its `run` is a task of the worker. Loop's thread only.

    Attributes:
        buffer: Where rows wait.
        sender: Knows whether they will wait for long.
        offloader: Does the work in another thread.
    """

    buffer: CompactableBuffer
    sender: DeliveryHealth
    offloader: Offloads
    _nudged: anyio.Event | None = field(default=None, init=False)

    def nudge(self) -> None:
        """Look again whether there is something to compress."""
        if self._nudged is not None and not self.sender.is_healthy:
            with suppress(MemoryError, OSError):  # no memory for the work itself
                self.buffer.pack()
            self._nudged.set()

    async def run(self) -> None:
        """Compress until cancelled; a block whose compression is cancelled stays as it was."""
        while True:
            self._nudged = anyio.Event()
            while self.sender.is_down and (piece := self.buffer.begin_compaction()):
                try:
                    await self.offloader.offload(piece.run)
                except (MemoryError, OSError):
                    break  # no memory for it either; it is tried again with the next row
                finally:
                    piece.finish()
            await self._nudged.wait()
