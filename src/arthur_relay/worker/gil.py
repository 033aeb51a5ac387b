"""Shares the interpreter lock with the application: pauses of the worker while others compute.

CPython hands its lock over by itself after 5 ms only (`sys.getswitchinterval`), and a thread that
waits for it starts to count anew whenever the lock is let go and taken again in between, as by a
poll that returns at once. A worker that computes, or polls, without a pause therefore makes an
event loop in another thread late by 5 ms and more. A real pause, of a few dozen microseconds, lets
the one who waits have it.
"""

import time
from collections.abc import Callable
from typing import Protocol

from arthur_relay.system import native
from arthur_relay.system.clocks import Clocks

SLICE_SECONDS = 0.0003
"""The longest that the worker computes before it pauses: how late it may make the application."""

RUSH_SECONDS = 0.003
"""The same while captures come in faster than they are encoded: losing some would be worse."""

PAUSE_SECONDS = 0.00005
"""The shortest sleep that really lets go; the kernel makes about 0.1 ms of it."""

BUSY_SHARE = 0.02
"""Others compute when they took more than this part of a core since the last look."""

LOOK_SECONDS = 0.01
"""How long a look is good for: where system calls are slow it costs as much as encoding a row."""


class CpuClock(Protocol):
    """Time as the worker's thread spends it."""

    def seconds(self) -> float:
        """Return seconds, for durations."""
        ...

    def of_others(self) -> float:
        """Return the CPU seconds that the process's other threads have taken."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let go of the lock for at least so many seconds."""
        ...


class ThisProcess:
    """The real one."""

    def seconds(self) -> float:
        """Return seconds."""
        return Clocks.perf_counter()

    def of_others(self) -> float:
        """Return the CPU seconds of the other threads."""
        return time.process_time() - time.thread_time()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        native.sleep(seconds)


class GilYielder:
    """Says when the worker has computed for long enough, and pauses then. Worker's thread only.

    Args:
        clock: Tells how the process spends its time.
    """

    def __init__(self, clock: CpuClock = ThisProcess()) -> None:  # noqa: B008 - it has no state
        self._clock = clock
        self._since = self._looked_at = clock.seconds()
        self._others = 0.0
        self._others_compute = True

    def maybe_yield(self, in_a_rush: Callable[[], bool]) -> None:
        """Pause if it is time and someone else computes.

        Args:
            in_a_rush: Says whether the worker falls behind; then it may compute for longer.
        """
        now = self._clock.seconds()
        computed = now - self._since
        if computed < SLICE_SECONDS or (computed < RUSH_SECONDS and in_a_rush()):
            return
        if now - self._looked_at >= LOOK_SECONDS:
            self._look(now)
        if self._others_compute:
            self._clock.sleep(PAUSE_SECONDS)
            now = self._clock.seconds()
        self._since = now

    def _look(self, now: float) -> None:
        others = self._clock.of_others()
        self._others_compute = others - self._others > BUSY_SHARE * (now - self._looked_at)
        self._others, self._looked_at = others, now
