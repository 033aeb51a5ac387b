"""Waiting for what tells no one that it has come: by looking for it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 30.0
"""How long a test waits for what has to come."""

T = TypeVar("T")


def wait_for(
    what: Callable[[], T | None], seconds: float = SECONDS, *, look_seconds: float = 0.01
) -> T:
    """Return what a function returns once it is something.

    Args:
        what: Looks.
        seconds: How long it may take.
        look_seconds: The time between two looks.

    Raises:
        AssertionError: It has not come in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"it has not become so in {seconds:g} s"
        time.sleep(look_seconds)
    return found


async def turn_until(what: Callable[[], T | None], seconds: float = SECONDS) -> T:
    """Let asyncio's loop take turns, one at least, until a function returns something.

    Args:
        what: Looks, after each turn.
        seconds: How long it may take.

    Returns:
        What the function returned.

    Raises:
        TimeoutError: It has not come in time.
    """
    async with asyncio.timeout(seconds):
        while True:
            await asyncio.sleep(0)
            if found := what():
                return found


class Gate:
    """Keeps what waits on any loop from going on, until a test opens it from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def set(self) -> None:
        """Open it for good."""
        with self._lock:
            self._is_open = True
            for event, loop in self._waiting.items():
                loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        """Wait until it is open."""
        event = asyncio.Event()
        with self._lock:
            if self._is_open:
                return
            self._waiting[event] = asyncio.get_running_loop()
        try:
            await event.wait()
        finally:
            with self._lock:
                del self._waiting[event]
