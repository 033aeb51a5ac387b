"""Runs the code of the application's objects, such as their `__str__`, for a limited time only.

All deliveries of a relay go through one thread, and an object may take as long as it likes to say
what it is: it may wait for a lock, or ask a database. So it is asked in another thread, and the
worker waits for the answer for `LIMIT_SECONDS` at most. A class without an answer in time is never
asked again, and after `MOST_SILENT` such classes no class is asked that is not trusted by then: so
no more threads than that can be left. A class that answers slowly, but in time, is asked as often
as a twentieth of the time allows.

A class is trusted after `TRUSTED_AFTER` quick answers, and asked in the worker's own thread from
then on, because a thread for each answer would cost more than most answers. Only such a class can
still hold up the worker for longer: one that has always been quick, and then blocks.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from arthur_relay.system import native
from arthur_relay.system.worker_logs import WorkerLogger

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

logger = WorkerLogger("arthur_relay.worker")

LIMIT_SECONDS: Final = 1.0
"""How long the worker waits for an answer."""

QUICK_SECONDS: Final = 0.01
"""How long a quick answer takes, at most: one that asks a database mostly takes longer."""

TRUSTED_AFTER: Final = 20
MOST_SILENT: Final = 8

SHARE: Final = 0.05
"""The part of the time that a class's slow answers may take, beside the first second."""

KNOWN: Final[frozenset[type]] = frozenset(
    {
        *(str, int, float, bool, complex, type(None), bytes, bytearray, memoryview),
        *(dict, list, tuple, set, frozenset, OrderedDict, defaultdict, Counter),
        *(date, datetime, time, timedelta, Decimal, Fraction, UUID),
        *(PurePosixPath, PureWindowsPath, type(Path())),
    }
)
"""Classes whose own code answers; what is in a container is asked by itself."""


class Asks(Protocol):
    """Asks an object of the application; see `ForeignObjects.ask`."""

    def __call__(self, function: Callable[[Any], T], value: Any) -> T:
        """Return what a function returns for an object."""
        ...


class SilentObjectError(Exception):
    """An object has not answered in time, or is not asked."""


class ForeignObjects:
    """Asks the application's objects. Worker's thread only.

    A function that is given must run no code of others than the object's, and must not look into
    a container's elements: these are asked by themselves.

    Args:
        limit_seconds: How long an answer may take.
        clock: The time in seconds, on any scale.
    """

    def __init__(
        self, limit_seconds: float = LIMIT_SECONDS, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._limit_seconds = limit_seconds
        self._clock = clock
        self._classes: WeakKeyDictionary[type, _Class] = WeakKeyDictionary()
        self._silent = 0

    def ask(self, function: Callable[[Any], T], value: Any) -> T:
        """Return what a function returns for an object, whose code it runs.

        Raises:
            SilentObjectError: It is not known in time, or not asked.
            Exception: The function has raised it. What ends a thread or a process is no such
                exception, and becomes one.
        """
        kind = type(value)
        if kind in KNOWN:
            return function(value)
        known = self._classes.get(kind)
        if known is None:
            known = self._classes[kind] = _Class(self._clock())
        question = _Question(function, value, self._clock)
        if known.quick_answers >= TRUSTED_AFTER:
            question.run()
        elif self._silent >= MOST_SILENT or not known.may_be_asked(self._clock()):
            raise SilentObjectError
        elif not question.run_elsewhere(self._limit_seconds):
            self._silent += 1
            known.is_silent = True
            logger.warning(
                "arthur-relay: an object of the class %s has not said within %g s what it is: such"
                " objects are shown by the name of their class from now on",
                kind.__qualname__,
                self._limit_seconds,
            )
            raise SilentObjectError
        known.answered(question.seconds)
        return question.answer()


class _Class:
    """What is known of a class.

    Attributes:
        quick_answers: How many there were since the last slow one.
        is_silent: Whether an answer did not come in time.
    """

    __slots__ = ("_began_at", "_slow_seconds", "is_silent", "quick_answers")

    def __init__(self, now: float) -> None:
        self.quick_answers = 0
        self.is_silent = False
        self._began_at = now
        self._slow_seconds = 0.0

    def may_be_asked(self, now: float) -> bool:
        """Return whether it answers, and has not used up the time for slow answers."""
        allowed = LIMIT_SECONDS + SHARE * (now - self._began_at)
        return not self.is_silent and self._slow_seconds < allowed

    def answered(self, seconds: float) -> None:
        """Take note of how long an answer took."""
        if seconds <= QUICK_SECONDS:
            self.quick_answers += 1
        else:
            self.quick_answers = 0
            self._slow_seconds += seconds


class _Question(Generic[T]):
    """A call of a function, in this thread or in another one."""

    def __init__(
        self, function: Callable[[Any], T], value: Any, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._function = function
        self._value = value
        self._found: list[T] = []
        self._error: Exception | None = None
        self.seconds = 0.0

    def run(self) -> None:
        """Make the call."""
        began_at = self._clock()
        try:
            self._found.append(self._function(self._value))
        except Exception as error:  # noqa: BLE001 - it is raised by `answer`
            self._error = error
        except BaseException as error:  # noqa: BLE001 - it must not end the worker
            self._error = RuntimeError(type(error).__name__)
        self.seconds = self._clock() - began_at

    def run_elsewhere(self, limit_seconds: float) -> bool:
        """Make the call in another thread; returns whether it has ended in time."""
        done = native.Waiter()

        def run() -> None:
            self.run()
            done.wake()

        try:
            native.BackgroundThread(run, "arthur-relay-object").start()
        except RuntimeError:  # there are none, mostly at the process's end, which is limited itself
            self.run()
            return True
        return done.wait(limit_seconds)

    def answer(self) -> T:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._found[0]
