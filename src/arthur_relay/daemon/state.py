"""The daemon's state: its phase, its liveness, its readiness, and what waits."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from arthur_relay.daemon.measurements import IntakeCounts, Observations, Point
from arthur_relay.encoding.product import Product

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arthur_relay.accounting import Accounts
    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.log_writer import LogWriter
    from arthur_relay.daemon.roles import Station
    from arthur_relay.settings import RelaySettings
    from arthur_relay.stats import Health, Stats
    from arthur_relay.worker.pipeline import Pipeline

BEAT_SECONDS = 0.5
"""How often the loops are checked."""

STALLED_SECONDS = 10.0
"""The worker's loop counts as dead when it has not run for this long."""

DEAD_LETTERS_SECONDS = 2.0
"""How long a count of the dead letters is kept, because it reads all of them."""


class Queue(NamedTuple):
    """The rows that wait."""

    pending_bytes: int
    """Bytes between the clients and Arthur, as accounted."""
    spool_rows: int
    spool_bytes: int
    """Bytes of the spool's files."""
    spool_limit_bytes: int
    """The size at which it is full."""
    oldest_age_seconds: float
    """How long the oldest row has waited, across restarts; 0 when none waits."""


class Phase(StrEnum):
    """Where the daemon is between its start and its end."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


@dataclass(slots=True, eq=False)
class DaemonState:
    """What the views read of a product. Any thread; never blocks.

    Attributes:
        current: The daemon's own settings, as they are now.
        relay_settings: The pipeline's settings.
        pipeline: The pipeline, with its counts and its buffer.
        station: What the daemon's role does with rows.
        destination: Arthur's address without credentials, for people.
        log: Writes the log and counts dropped lines; None when the log is someone else's.
        counts: The intake's counts.
        phase: Where the daemon is between its start and its end.
        started_at: When it was created, on `time.monotonic()`'s scale.
        lag_seconds: How late the intake's loop was lately.
        beat_at: When the worker's loop last ran, on `time.monotonic()`'s scale.
        seen: What was measured of requests.
        product: The product.
    """

    current: Current
    relay_settings: RelaySettings
    pipeline: Pipeline
    station: Station
    destination: str
    log: LogWriter | None = None
    counts: IntakeCounts = field(default_factory=IntakeCounts)
    phase: Phase = Phase.STARTING
    started_at: float = field(default_factory=time.monotonic)
    lag_seconds: float = 0.0
    beat_at: float = field(default_factory=time.monotonic)
    seen: Observations = field(default_factory=Observations)
    product: Product = Product.SCOPE
    _letters: Mapping[str, int] | None = None
    _letters_until: float = 0.0

    def __post_init__(self) -> None:
        self.pipeline.observe(self.seen)
        self.seen.recent_errors.product = self.product
        self.counts.observe.append(self.seen.intake_seconds.observe)

    def stats(self) -> Stats:
        """Return all counts of the pipeline."""
        return self.pipeline.stats()

    def health(self) -> Health:
        """Return the health of delivery in a word and a sentence; it does not affect readiness."""
        return self.pipeline.health(unanswered=self.seen.questions.failure)

    def accounts(self) -> Accounts:
        """Return the counts of rows by model."""
        by_model = self.pipeline.ledger.by_model
        assert by_model is not None, "the daemon's pipeline counts by model"
        return by_model.accounts()

    def queue(self) -> Queue:
        """Return the state of the queue."""
        waiting = self.pipeline.waiting()
        oldest_at = waiting.oldest_at
        return Queue(
            pending_bytes=self.pipeline.pending_bytes,
            spool_rows=waiting.rows,
            spool_bytes=waiting.size,
            spool_limit_bytes=self.relay_settings.spool_bytes,
            oldest_age_seconds=0.0 if oldest_at is None else max(0.0, time.time() - oldest_at),
        )

    def dead_letters(self) -> Mapping[str, int] | None:
        """Return the number of dead letters, by reason; None while it is not known.

        Reads a file: not for an event loop.
        """
        if time.monotonic() >= self._letters_until:
            with suppress(OSError, sqlite3.Error):  # the last count is better than nothing
                self._letters = self.pipeline.dead_letters.count()
            self._letters_until = time.monotonic() + DEAD_LETTERS_SECONDS
        return self._letters

    def take_point(self) -> None:
        """Add a point to the history when it is due. For one thread."""
        now, history = time.monotonic(), self.seen.history
        if history.is_due(now):
            totals = self.pipeline.ledger.totals()
            accepted = self.counts.rows["accepted"]
            history.add(Point(now, accepted, totals.delivered, totals.pending))

    def loop_lag_seconds(self) -> float:
        """Return how late the slower one of the two loops is."""
        # The worker's loop is checked now and then only, so its last run was a while ago.
        return max(self.lag_seconds, self.worker_lag_seconds() - BEAT_SECONDS, 0.0)

    def worker_lag_seconds(self) -> float:
        """Return for how long the worker's loop has not run."""
        return max(0.0, time.monotonic() - self.beat_at)

    def liveness(self) -> tuple[bool, str]:
        """Return whether both loops run, and a sentence. The intake's runs if it answers at all."""
        lag = self.worker_lag_seconds()
        if lag > STALLED_SECONDS:
            return False, f"The worker's loop has not turned for {lag:.0f} s."
        return True, "The loops turn."

    def readiness(self) -> tuple[bool, str]:
        """Return whether rows are taken in, and a sentence. An outage of Arthur does not matter."""
        if self.phase is Phase.STARTING:
            return False, "The daemon is starting."
        if self.phase is Phase.DRAINING:
            return False, "The daemon is stopping: it takes no more rows."
        return self.station.readiness(self.pipeline)


def liveness(states: Sequence[DaemonState]) -> tuple[bool, str]:
    """Return whether all loops run, and a sentence."""
    found = [state.liveness() for state in states]
    return all(good for good, _ in found), _joined(states, found)


def readiness(states: Sequence[DaemonState]) -> tuple[bool, str]:
    """Return whether rows of any product are taken in, and a sentence for each product.

    Else a product whose spool is full would keep the rows of the other out.
    """
    found = [state.readiness() for state in states]
    return any(good for good, _ in found), _joined(states, found)


def _joined(states: Sequence[DaemonState], found: Sequence[tuple[bool, str]]) -> str:
    """Return one sentence where all have the same, else each product's."""
    sentences = dict.fromkeys(sentence for _, sentence in found)
    if len(sentences) == 1:
        return next(iter(sentences))
    return " ".join(
        f"{state.product}: {sentence}" for state, (_, sentence) in zip(states, found, strict=True)
    )
