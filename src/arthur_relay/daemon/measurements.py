"""Measurements of requests for the views: counts, durations, sizes, errors."""

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

from arthur_relay.daemon.logs import product_of

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
    """A snapshot of a histogram."""

    buckets: Sequence[tuple[float, int]]
    """Upper bounds, the last one infinite, and the number of observations up to each."""
    total: float

    @property
    def observations(self) -> int:
        """The number of all observations."""
        return self.buckets[-1][1]

    def quantile(self, share: float) -> float | None:
        """Return the upper bound of a quantile's bucket, or None without observations."""
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
        """Count an observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> Distribution:
        """Return a snapshot."""
        counts, below = self._counts[:], 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            below += count
            buckets.append((bound, below))
        return Distribution(buckets, self._total)


class Trouble(NamedTuple):
    """A recent error, for people."""

    text: str
    times: int
    """How often it happened."""
    at: float
    """When it last happened, in seconds since 1970."""


@dataclass(slots=True)
class IntakeCounts:
    """Counts since the start.

    Attributes:
        requests: Requests for rows, by method and status.
        rows: Rows by outcome: `accepted`, `refused` (for good), `deferred` (503: the client keeps
            them).
        repaired: Accepted rows that were made such as Arthur can store.
        connections: Open connections, by listener.
        observe: Functions that get the seconds until each request with rows was accepted.
        body_bytes: The bytes of requests' bodies in memory now.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    connections: Counter[str] = field(default_factory=Counter)
    observe: list[Callable[[float], None]] = field(default_factory=list)
    body_bytes: int = 0

    def answered(self, method: str, status: int, began_at: float, *, is_accepted: bool) -> None:
        """Count a request with rows.

        Args:
            method: The method of the request.
            status: The status of the answer.
            began_at: When it began, on `time.perf_counter()`'s scale.
            is_accepted: Whether any of its rows was.
        """
        self.requests[method, status] += 1
        if is_accepted:
            seconds = time.perf_counter() - began_at
            for observe in self.observe:
                observe(seconds)


class RecentErrors(logging.Handler):
    """Remembers the latest errors, each once. Any thread.

    They can be shown, because this package logs no text of a row and no credential.

    Attributes:
        product: The product that they are of; lines of another one are not remembered.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.product: str | None = None
        self._kept: dict[str, Trouble] = {}
        self._mine = threading.Lock()

    def note(self, text: str) -> None:
        """Remember an error."""
        text = text[:ERROR_CHARACTERS]
        with self._mine:
            before = self._kept.pop(text, None)
            times = 1 if before is None else before.times + 1
            self._kept[text] = Trouble(text, times, time.time())
            while len(self._kept) > ERRORS_KEPT:
                del self._kept[next(iter(self._kept))]

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a log line."""
        if product_of(record) in (None, self.product):
            self.note(record.getMessage())

    def latest(self) -> list[Trouble]:
        """Return the errors, latest first."""
        with self._mine:
            return list(reversed(self._kept.values()))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Remember what this package logs within the block."""
        log = logging.getLogger("arthur_relay")
        log.addHandler(self)
        try:
            yield
        finally:
            log.removeHandler(self)


class Point(NamedTuple):
    """The counts at one moment."""

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
        """Return whether it is time for a point."""
        return not self._points or now >= self._points[-1].at + POINT_SECONDS

    def add(self, point: Point) -> None:
        """Add a point."""
        self._points.append(point)

    def points(self) -> list[Point]:
        """Return the points, oldest first."""
        return list(self._points.copy())


class QuestionOutcome(StrEnum):
    """The outcome of a question to Arthur for a model."""

    ANSWERED = "answered"
    """Arthur returned the model, or that it does not exist."""
    UNAVAILABLE = "unavailable"
    """It could not be reached, or its answer not understood."""
    REFUSED = "refused"
    """It refused the credentials."""


class Questions:
    """The outcomes of questions for models. Clients wait for the answers before they send rows.

    The daemon's loop writes, any thread reads.

    Attributes:
        outcomes: The number of questions by outcome.
        last: The outcome of the last one; None before there was one.
        failure: Why the last one had no answer; "" when it had one, or a delivery succeeded since.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[QuestionOutcome] = Counter()
        self.last: QuestionOutcome | None = None
        self.failure = ""

    def note(self, outcome: QuestionOutcome, failure: str = "") -> bool:
        """Count an outcome. Returns whether it differs from the last one."""
        is_news = outcome is not self.last and not (self.last is None and not failure)
        self.outcomes[outcome] += 1
        self.last, self.failure = outcome, failure
        return is_news

    def delivered(self) -> None:
        """Note that Arthur accepted a request with rows: it is up, and accepts the credentials."""
        self.failure = ""
        self.last = QuestionOutcome.ANSWERED

    @property
    def are_refused(self) -> bool:
        """Whether Arthur refused the credentials at the last one."""
        return self.last is QuestionOutcome.REFUSED


class Observations:
    """All measurements.

    Attributes:
        batch_rows, batch_bytes: The sizes of requests to Arthur.
        delivery_seconds: Their durations.
        intake_seconds: The time until clients' requests were acknowledged.
        outcomes: Requests to Arthur by outcome.
        questions: Questions to Arthur for models.
        recent_errors: The latest errors.
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
        """Measure an attempt. Called by the worker's thread."""
        self.batch_rows.observe(len(batch.rows))
        self.batch_bytes.observe(batch.size)
        self.delivery_seconds.observe(seconds)
        failure = attempt.failure
        if failure is None:
            self.questions.delivered()
        self.outcomes["answered" if failure is None else failure.value.replace(" ", "_")] += 1
        if attempt.reason:
            self.recent_errors.note(f"A request failed: {attempt.reason}")
