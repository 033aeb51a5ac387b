"""Tells all who wait that something has changed."""

from __future__ import annotations

import anyio


class Pulse:
    """An event that recurs. One loop.

    Who waits takes `next` before looking, so that no change is missed in between::

        changed = pulse.next
        if not anything:
            await changed.wait()
    """

    def __init__(self) -> None:
        self.renew()

    @property
    def next(self) -> anyio.Event:
        """What is set by the next change."""
        return self._next

    def renew(self) -> None:
        """Get ready for another loop."""
        self._next = anyio.Event()

    def beat(self) -> None:
        """Tell all who wait."""
        self._next.set()
        self._next = anyio.Event()
