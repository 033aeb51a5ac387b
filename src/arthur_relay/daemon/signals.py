"""The daemon's signals: SIGTERM and SIGINT stop it, SIGHUP reloads its configuration."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Self

from arthur_relay.system.operating_system import SIGHUP

if TYPE_CHECKING:
    from types import TracebackType

_ALL = (signal.SIGTERM, signal.SIGINT, SIGHUP)


class Signals:
    """Handles the signals within the block. Created and used on the main thread's loop.

    Attributes:
        stop: Set by the first request to stop.
        again: Set by the second one.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.again = asyncio.Event()
        self._reload = False
        self._any = asyncio.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._before = {number: signal.getsignal(number) for number in _ALL}
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(SIGHUP, self._on_reload)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number, handler in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)  # by default, process 1 would ignore them

    async def any(self) -> None:
        """Wait for a signal that was not waited for yet."""
        await self._any.wait()
        self._any.clear()

    def take_reload(self) -> bool:
        """Return whether a reload was requested since the last call."""
        wanted, self._reload = self._reload, False
        return wanted

    def _on_stop(self) -> None:
        (self.again if self.stop.is_set() else self.stop).set()
        self._any.set()

    def _on_reload(self) -> None:
        self._reload = True
        self._any.set()
