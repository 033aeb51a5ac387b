"""Clocks that measure durations, out of reach of what freezes time in users' tests.

freezegun and its like replace `time.perf_counter` and `time.monotonic` in every module that names
them. A frozen clock would stop the worker's timers, and one that is frozen in mid-call would tell
durations of years. The wall clock is left to them: inferences carry the frozen time.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable
from typing import ClassVar


class Clocks:
    """What has to be real, as attributes of a class, where such tools do not look.

    Attributes:
        monotonic: Returns seconds, as `time.monotonic()` does.
        perf_counter: Returns seconds, as `time.perf_counter()` does.
        datetime: The class. What is put into its place is one that JSON's encoder does not take.
    """

    # Imported for the first time while time is frozen, it has to ask freezegun for them.
    _frozen = sys.modules.get("freezegun.api")
    # Built-in functions do not become methods.
    monotonic: ClassVar[Callable[[], float]] = getattr(_frozen, "real_monotonic", time.monotonic)
    perf_counter: ClassVar[Callable[[], float]] = getattr(
        _frozen, "real_perf_counter", time.perf_counter
    )
    datetime: ClassVar[type[dt.datetime]] = getattr(_frozen, "real_datetime", dt.datetime)


def monotonic() -> float:
    """Return seconds on the scale of `time.monotonic()`; it never stands still."""
    return Clocks.monotonic()
