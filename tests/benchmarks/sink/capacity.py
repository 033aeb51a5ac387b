"""A server's capacity that changes in steps: beyond it requests wait, and then are refused."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tests.benchmarks.ratios import percentile

SERVICE_SECONDS: Final = 0.1
"""How long a request takes that does not have to wait: the mean."""

SERVICE_SIGMA: Final = 0.5
"""How much that varies, as the standard deviation of its logarithm: one in ten takes twice as long
as the one in the middle."""

WAITING_FOR_ONE: Final = 1
"""So many requests may wait for each that is served at once; the others are answered 429."""

CallLater = Callable[[float, Callable[[], None]], object]


class Step(NamedTuple):
    """How many requests are served at once, and for how long that is so."""

    at_once: int
    seconds: float


@dataclass
class Tally:
    """What came in a step.

    Attributes:
        step: The step.
        begun: When it began.
        requests: Requests that came.
        refused: Those of them that were answered 429.
        records: Records that were answered with success.
        seconds: From a request to its answer, for each that was answered with success.
    """

    step: Step
    begun: float
    requests: int = 0
    refused: int = 0
    records: int = 0
    seconds: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What the owner is told."""
        asked = (50, 99) if self.seconds else ()
        latency = {f"p{each}_ms": percentile(self.seconds, each) * 1e3 for each in asked}
        return {
            "at_once": self.step.at_once,
            "begun": self.begun,
            "seconds": self.step.seconds,
            "requests": self.requests,
            "refused": self.refused,
            "records": self.records,
            **latency,
        }


class Capacity:
    """Serves so many requests at once as the step allows; after the last step all, without a wait.

    Its first step begins with the first request.

    Args:
        steps: At least one.
        now: Returns seconds.
        call_later: Calls a function after some seconds.
        service_seconds: Returns how long the next request takes that is served.
    """

    def __init__(
        self,
        steps: list[Step],
        *,
        now: Callable[[], float],
        call_later: CallLater,
        service_seconds: Callable[[], float],
    ) -> None:
        self._steps = steps
        self._service_seconds = service_seconds
        self._now = now
        self._call_later = call_later
        self._busy = 0
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_over = False
        self.tallies: list[Tally] = []

    def take(
        self, records: int, *, serve: Callable[[], object], refuse: Callable[[], object]
    ) -> None:
        """Treat a request: call one of the two, now or later."""
        if not self.tallies:
            self._begin(0)
        tally = self._tally()
        if tally is None:
            serve()
            return
        tally.requests += 1
        arrived = self._now()

        def end() -> None:
            self._busy -= 1
            if (answered_in := self._tally()) is not None:
                answered_in.records += records
                answered_in.seconds.append(self._now() - arrived)
            serve()
            self._go_on()

        if self._busy < tally.step.at_once:
            self._start(end)
        elif len(self._waiting) < WAITING_FOR_ONE * tally.step.at_once:
            self._waiting.append(end)
        else:
            tally.refused += 1
            refuse()

    def _start(self, end: Callable[[], None]) -> None:
        self._busy += 1
        self._call_later(self._service_seconds(), end)

    def _go_on(self) -> None:
        tally = self._tally()
        while self._waiting and (tally is None or self._busy < tally.step.at_once):
            self._start(self._waiting.popleft())

    def _tally(self) -> Tally | None:
        """The tally of now; None after the last step."""
        return None if self._is_over else self.tallies[-1]

    def _begin(self, place: int) -> None:
        self.tallies.append(Tally(self._steps[place], self._now()))
        self._call_later(self._steps[place].seconds, lambda: self._next(place + 1))

    def _next(self, place: int) -> None:
        if place < len(self._steps):
            self._begin(place)
        else:
            self._is_over = True
        self._go_on()


def varied(draw: random.Random) -> float:
    """How long a request takes: around `SERVICE_SECONDS`, as answers of services vary."""
    return SERVICE_SECONDS * draw.lognormvariate(-(SERVICE_SIGMA**2) / 2, SERVICE_SIGMA)
