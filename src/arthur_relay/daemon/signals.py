"""Signals, in one place: what SIGTERM, SIGINT and SIGHUP ask of the daemon."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

_ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Takes the signals inside of the block. Made and used on the main thread's loop.

    Attributes:
        stop: Set when the daemon is told to stop.
        again: Set when it is told a second time.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.again = asyncio.Event()
        self._reload = False
        self._any = asyncio.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._before = {number: signal.getsignal(number) for number in _ALL}
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
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
            signal.signal(number, handler)  # process 1 would ignore them from here on

    async def any(self) -> None:
        """Wait for one that has not been taken."""
        await self._any.wait()
        self._any.clear()

    def take_reload(self) -> bool:
        """Return whether a reload is asked for; it is not any more then."""
        wanted, self._reload = self._reload, False
        return wanted

    def _told_to_stop(self) -> None:
        (self.again if self.stop.is_set() else self.stop).set()
        self._any.set()

    def _told_to_reload(self) -> None:
        self._reload = True
        self._any.set()
