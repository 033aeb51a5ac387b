"""Waiting for what tells no one that it has come: by looking for it."""

from __future__ import annotations

import asyncio
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
