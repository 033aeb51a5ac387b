"""Shares the interpreter lock with the application: the worker pauses while others compute.

CPython hands its lock over by itself only after 5 ms (`sys.getswitchinterval`), and a thread that
waits for the lock starts to count anew whenever the lock is released and taken again meanwhile, as
by a poll that returns at once. A worker that computes or polls without a pause would therefore
delay an event loop in another thread by 5 ms and more. During a real pause, of a few dozen
microseconds, the waiting thread gets the lock.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from arthur_relay.system import native
from arthur_relay.system.clocks import Clocks

SLICE_SECONDS = 0.0003
"""The longest that the worker computes before it pauses, and delays the application."""

RUSH_SECONDS = 0.003
"""The same while captures come in faster than they are encoded: to lose some would be worse."""

PAUSE_SECONDS = 0.00005
"""The shortest sleep that really releases the lock; the kernel makes about 0.1 ms of it."""

BUSY_SHARE = 0.02
"""Others compute if they have used more than this part of a core since the last look."""

LOOK_SECONDS = 0.01
"""The time between two looks: where system calls are slow, one costs as much as encoding a row."""


class CpuClock(Protocol):
    """The time, and how this process spends it."""

    def seconds(self) -> float:
        """Return seconds, for durations."""
        ...

    def of_others(self) -> float:
        """Return the CPU seconds that the process's other threads have used."""
        ...

    def sleep(self, seconds: float) -> None:
        """Release the lock for at least so many seconds."""
        ...


class ThisProcess:
    """The real clock."""

    def seconds(self) -> float:
        """Return seconds."""
        return Clocks.perf_counter()

    def of_others(self) -> float:
        """Return the CPU seconds of the other threads."""
        return time.process_time() - time.thread_time()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        native.sleep(seconds)


THIS_PROCESS: Final = ThisProcess()


class GilYielder:
    """Pauses the worker once it has computed for long enough. Worker's thread only.

    Args:
        clock: The time, and how this process spends it.
    """

    def __init__(self, clock: CpuClock = THIS_PROCESS) -> None:
        self._clock = clock
        self._since = self._looked_at = clock.seconds()
        self._others = 0.0
        self._others_compute = True

    def maybe_yield(self, in_a_rush: Callable[[], bool]) -> None:
        """Pause if it is time to, and other threads compute.

        Args:
            in_a_rush: Returns whether the worker falls behind; then it may compute for longer.
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
