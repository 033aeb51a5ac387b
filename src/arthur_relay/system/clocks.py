"""Clocks that measure durations, out of reach of what freezes time in users' tests.

freezegun and similar tools replace `time.perf_counter` and `time.monotonic` in every module that
names them. A frozen clock would stop the worker's timers, and a clock that is frozen during a call
would yield durations of years. The wall clock may be frozen: inferences carry the frozen time.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable
from typing import ClassVar, Final, Protocol


class Clocks:
    """The real clocks, as attributes of a class, where such tools do not look.

    Attributes:
        monotonic: Returns seconds, as `time.monotonic()` does.
        perf_counter: Returns seconds, as `time.perf_counter()` does.
        datetime: The real class; JSON's encoder does not take the class that replaces it.
    """

    # If this module is first imported while time is frozen, freezegun has the real ones.
    _frozen = sys.modules.get("freezegun.api")
    # Built-in functions do not become methods.
    monotonic: ClassVar[Callable[[], float]] = getattr(_frozen, "real_monotonic", time.monotonic)
    perf_counter: ClassVar[Callable[[], float]] = getattr(
        _frozen, "real_perf_counter", time.perf_counter
    )
    datetime: ClassVar[type[dt.datetime]] = getattr(_frozen, "real_datetime", dt.datetime)


def monotonic() -> float:
    """Return seconds on the scale of `time.monotonic()`, also while time is frozen."""
    return Clocks.monotonic()


class Clock(Protocol):
    """A clock that is passed as an argument."""

    def monotonic(self) -> float:
        """Return seconds on any scale, for durations."""
        ...

    def utc_now(self) -> dt.datetime:
        """Return the wall-clock time, timezone-aware."""
        ...


class SystemClock:
    """The real time; durations are right also while time is frozen."""

    def monotonic(self) -> float:
        """Return seconds on the scale of `time.monotonic()`."""
        return Clocks.monotonic()

    def utc_now(self) -> dt.datetime:
        """Return the wall-clock time."""
        return dt.datetime.now(dt.UTC)


SYSTEM_CLOCK: Final = SystemClock()
"""The one that everyone has who is given no other."""
