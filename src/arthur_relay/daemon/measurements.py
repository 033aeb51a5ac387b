"""What is measured of requests, for the views: counts, times, sizes, errors."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from arthur_relay.row import Attempt, Batch

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
INTAKE_SECONDS = (0.001, 0.0025, *SECONDS)
ROWS = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)
BYTES = tuple(float(1024 << 2 * power) for power in range(8))
"""1 KiB to 16 MiB."""

ERRORS_KEPT = 20
ERROR_CHARACTERS = 300

POINT_SECONDS = 2.0
"""The time between two points of the history."""

POINTS = 150


class Distribution(NamedTuple):
    """A reading of a histogram."""

    buckets: Sequence[tuple[float, int]]
    """Upper bounds, the last one infinite, and how many observations are not above."""
    total: float

    @property
    def observations(self) -> int:
        """How many there are in all."""
        return self.buckets[-1][1]

    def quantile(self, share: float) -> float | None:
        """Return the upper bound of the bucket that holds a quantile, or None without any."""
        if not self.observations:
            return None
        return next(bound for bound, below in self.buckets if below >= share * self.observations)


class Histogram:
    """Counts observations by size. One thread observes, any reads; no lock.

    Not prometheus_client's, which has a global switch for its `_created` series and writes files
    where PROMETHEUS_MULTIPROC_DIR is set.

    Args:
        bounds: Upper bounds, ascending.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> Distribution:
        """Return what was observed so far."""
        counts, below = self._counts[:], 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            below += count
            buckets.append((bound, below))
        return Distribution(buckets, self._total)


class Trouble(NamedTuple):
    """Something that went wrong, for people."""

    text: str
    times: int
    """How often it did."""
    at: float
    """When it last did, in seconds since 1970."""


@dataclass(slots=True)
class IntakeCounts:
    """Counts since the start.

    Attributes:
        requests: Requests for rows, by method and status.
        rows: Rows by what became of them: `accepted`, `refused` (they never can be), `deferred`
            (503: the client keeps them).
        connections: Open connections, by listener.
        observe: Given, for each request with rows that were accepted, the seconds until then.
        body_bytes: Bytes of requests' bodies that are in memory now.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    connections: Counter[str] = field(default_factory=Counter)
    observe: list[Callable[[float], None]] = field(default_factory=list)
    body_bytes: int = 0


class RecentErrors(logging.Handler):
    """Remembers the last things that went wrong, each once. Any thread.

    What this package logs holds no text of a row and no credential, so they can be shown.

    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: dict[str, Trouble] = {}
        self._mine = threading.Lock()

    def note(self, text: str) -> None:
        """Remember that something went wrong."""
        text = text[:ERROR_CHARACTERS]
        with self._mine:
            before = self._kept.pop(text, None)
            times = 1 if before is None else before.times + 1
            self._kept[text] = Trouble(text, times, time.time())
            while len(self._kept) > ERRORS_KEPT:
                del self._kept[next(iter(self._kept))]

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a line of the log."""
        self.note(record.getMessage())

    def latest(self) -> list[Trouble]:
        """Return what went wrong, the latest first."""
        with self._mine:
            return list(reversed(self._kept.values()))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take in what this package logs meanwhile."""
        log = logging.getLogger("arthur_relay")
        log.addHandler(self)
        try:
            yield
        finally:
            log.removeHandler(self)


class Point(NamedTuple):
    """How it was at one moment."""

    at: float
    """In seconds of any scale."""
    accepted: int
    """Rows since the start."""
    delivered: int
    """The same."""
    pending: int


class History:
    """The last minutes, in points. The intake's loop adds, any thread reads."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=POINTS)

    def is_due(self, now: float) -> bool:
        """Say whether it is time for a point."""
        return not self._points or now >= self._points[-1].at + POINT_SECONDS

    def add(self, point: Point) -> None:
        """Add a point."""
        self._points.append(point)

    def points(self) -> list[Point]:
        """Return the points, oldest first."""
        return list(self._points.copy())


class QuestionOutcome(StrEnum):
    """How a question to Arthur for a model ended."""

    ANSWERED = "answered"
    """Arthur told of the model, or that there is none."""
    UNAVAILABLE = "unavailable"
    """It could not be asked, or not understood."""
    REFUSED = "refused"
    """It does not know us."""


class Questions:
    """What became of the questions for models that clients wait for, as they send no row without.

    The daemon's loop notes, any thread reads.

    Attributes:
        outcomes: How many ended how.
        last: How the last one ended; None before there was one.
        failure: Why the last one had no answer; "" when it had one, or a delivery has since.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[QuestionOutcome] = Counter()
        self.last: QuestionOutcome | None = None
        self.failure = ""

    def note(self, outcome: QuestionOutcome, failure: str = "") -> bool:
        """Take in how one ended. Returns whether that is news."""
        is_news = outcome is not self.last and not (self.last is None and not failure)
        self.outcomes[outcome] += 1
        self.last, self.failure = outcome, failure
        return is_news

    def delivered(self) -> None:
        """Take in that Arthur took a request with rows: it is there, and knows us."""
        self.failure = ""
        self.last = QuestionOutcome.ANSWERED

    @property
    def are_refused(self) -> bool:
        """Whether the last one was refused for who we are."""
        return self.last is QuestionOutcome.REFUSED


class Observations:
    """All that is observed.

    Attributes:
        batch_rows, batch_bytes: Of requests to Arthur.
        delivery_seconds: How long each took.
        intake_seconds: How long requests of clients took until they were acknowledged.
        outcomes: Requests to Arthur by what became of them.
        questions: Questions to Arthur for models.
        troubles: What went wrong lately.
        history: The last minutes.
    """

    def __init__(self) -> None:
        self.batch_rows = Histogram(ROWS)
        self.batch_bytes = Histogram(BYTES)
        self.delivery_seconds = Histogram(SECONDS)
        self.intake_seconds = Histogram(INTAKE_SECONDS)
        self.outcomes: Counter[str] = Counter()
        self.questions = Questions()
        self.recent_errors = RecentErrors()
        self.history = History()

    def on_attempt(self, batch: Batch, attempt: Attempt, seconds: float) -> None:
        """Take in an attempt. The worker's thread."""
        self.batch_rows.observe(len(batch.rows))
        self.batch_bytes.observe(batch.size)
        self.delivery_seconds.observe(seconds)
        failure = attempt.failure
        if failure is None:
            self.questions.delivered()
        self.outcomes["answered" if failure is None else failure.value.replace(" ", "_")] += 1
        if attempt.reason:
            self.recent_errors.note(f"A request to Arthur: {attempt.reason}")
