"""What the daemon tells of itself: its phase, whether it lives, and whether it takes rows."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from arthur_relay.daemon.measurements import IntakeCounts, Observations, Point
from arthur_relay.worker.ingest import IngestRefusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arthur_relay.accounting import Accounts
    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.log_writer import LogWriter
    from arthur_relay.settings import RelaySettings
    from arthur_relay.stats import Health, Stats
    from arthur_relay.worker.pipeline import Pipeline

BEAT_SECONDS = 0.5
"""How often the loops are looked at."""

STALLED_SECONDS = 10.0
"""The worker's loop is taken for dead when it has not turned for as long."""

TROUBLE_SECONDS = 5.0
"""How long a write that failed makes the daemon unready; then rows may try again."""


DEAD_LETTERS_SECONDS = 2.0
"""How long a count of the dead letters is good for: all of them are read for it."""


class Queue(NamedTuple):
    """What waits."""

    pending_bytes: int
    """Bytes between the clients and Arthur, as accounted."""
    spool_rows: int
    spool_bytes: int
    """Bytes of the spool's files."""
    spool_limit_bytes: int
    """When it is full."""
    oldest_age_seconds: float
    """How long the oldest row has waited, restarts included; 0 when none waits."""


class Phase(StrEnum):
    """Where the daemon is between its start and its end."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


@dataclass(slots=True, eq=False)
class DaemonState:
    """What the views read. Any thread; nothing here waits.

    Attributes:
        current: The daemon's own settings, as they are now.
        relay_settings: The pipeline's.
        pipeline: The pipeline: its counts, and what waits.
        log: What writes the log, and counts what it could not; None where it is someone else's.
        counts: What the intake counts.
        destination: Where rows go, for people: an address without credentials.
        phase: Where the daemon is between its start and its end.
        started_at: When it was made, on `time.monotonic()`'s scale.
        lag_seconds: How late the intake's loop was lately.
        beat_at: When the worker's loop last turned, on `time.monotonic()`'s scale.
        seen: What was observed of requests.
    """

    current: Current
    relay_settings: RelaySettings
    pipeline: Pipeline
    destination: str
    log: LogWriter | None = None
    counts: IntakeCounts = field(default_factory=IntakeCounts)
    phase: Phase = Phase.STARTING
    started_at: float = field(default_factory=time.monotonic)
    lag_seconds: float = 0.0
    beat_at: float = field(default_factory=time.monotonic)
    seen: Observations = field(default_factory=Observations)
    _letters: Mapping[str, int] | None = None
    _letters_until: float = 0.0

    def __post_init__(self) -> None:
        self.pipeline.observe(self.seen)
        self.counts.observe.append(self.seen.intake_seconds.observe)

    def stats(self) -> Stats:
        """Return all counts of the pipeline."""
        return self.pipeline.stats()

    def health(self) -> Health:
        """Say in one word and one sentence how delivery goes; it has no part in readiness."""
        return self.pipeline.health(unanswered=self.seen.questions.failure)

    def accounts(self) -> Accounts:
        """Return the counts of rows by model."""
        by_model = self.pipeline.ledger.by_model
        assert by_model is not None, "the daemon's pipeline counts by model"
        return by_model.accounts()

    def queue(self) -> Queue:
        """Return what waits."""
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
        """Return how many dead letters are kept, by reason; None while it can't be told.

        Reads a file: not for an event loop.
        """
        if time.monotonic() >= self._letters_until:
            with suppress(OSError, sqlite3.Error):  # the last count is better than none
                self._letters = self.pipeline.dead_letters.count()
            self._letters_until = time.monotonic() + DEAD_LETTERS_SECONDS
        return self._letters

    def take_point(self) -> None:
        """Remember how it is now, when it is time to. For one thread."""
        now, history = time.monotonic(), self.seen.history
        if history.is_due(now):
            totals = self.pipeline.ledger.totals()
            accepted = self.counts.rows["accepted"]
            history.add(Point(now, accepted, totals.delivered, totals.pending))

    def loop_lag_seconds(self) -> float:
        """Return how late the slower one of the two loops is."""
        # The worker's is asked now and then only, so that its last turn was a while ago.
        return max(self.lag_seconds, self.worker_lag_seconds() - BEAT_SECONDS, 0.0)

    def worker_lag_seconds(self) -> float:
        """Return for how long the worker's loop has not turned."""
        return max(0.0, time.monotonic() - self.beat_at)

    def liveness(self) -> tuple[bool, str]:
        """Say whether both loops turn, and a sentence. Whoever asks sees that the intake's does."""
        lag = self.worker_lag_seconds()
        if lag > STALLED_SECONDS:
            return False, f"The worker's loop has not turned for {lag:.0f} s."
        return True, "The loops turn."

    def readiness(self) -> tuple[bool, str]:  # noqa: PLR0911 - a sentence each
        """Say whether rows are taken, and a sentence. Arthur's outage does not matter here."""
        if self.phase is Phase.STARTING:
            return False, "The daemon is starting."
        if self.phase is Phase.DRAINING:
            return False, "The daemon is stopping: it takes no more rows."
        if not self.pipeline.is_running:
            return False, "The worker died and is being started again."
        waiting = self.pipeline.waiting()
        if trouble := waiting.trouble:
            return False, f"The spool can't keep rows: {trouble}."
        ingest = self.pipeline.ingest
        failed = ingest.fails_for()
        if failed is not None and failed < TROUBLE_SECONDS:
            return False, f"{_sentence(IngestRefusal.UNWRITABLE)}; rows are put off until it can."
        if not ingest.has_room():
            return (
                False,
                f"{_sentence(IngestRefusal.FULL)}; rows are put off until some are delivered.",
            )
        if left_alone := waiting.left_alone:
            others = f"{left_alone} rows of others wait in its directory and are left alone"
            return True, f"The spool takes rows; {others}: see arthur-relay spool list."
        return True, "The spool takes rows."


def _sentence(refusal: IngestRefusal) -> str:
    return refusal.value[0].upper() + refusal.value[1:]
