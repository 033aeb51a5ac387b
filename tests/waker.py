"""What a queue wakes where a test has no worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Waker:
    """Counts wake-ups, and does what a test wants to happen at one."""

    is_this_thread = False

    def __init__(self, then: Callable[[], object] = bool) -> None:
        self.wakes = 0
        self._then = then

    def wake(self) -> None:
        self.wakes += 1
        self._then()
