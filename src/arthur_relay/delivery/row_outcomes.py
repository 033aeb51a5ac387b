"""What an attempt means for its rows: each is settled, or its history says that it failed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio

from arthur_relay.buffers import DeferringBuffer, DeliveryJournal, LeaseBuffer
from arthur_relay.delivery.ground_truth import GroundTruthOrder
from arthur_relay.delivery.in_flight import (
    Delivery,
    note_attempt,
    note_death,
    note_excuse,
    note_survival,
    note_unknown,
    sort_rows,
)
from arthur_relay.errors import safe_traceback
from arthur_relay.row import DELIVERED, Attempt, Outcome, Row
from arthur_relay.settings import RelaySettings
from arthur_relay.system.clocks import Clock
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.delivery")


class Settles(Protocol):
    """Records what became of rows; see `worker.settlement`."""

    def delivered(self, rows: Sequence[Row]) -> None:
        """Settle rows of one model that the destination has acknowledged."""
        ...

    def rejected(self, row: Row, outcome: Outcome, *, attempts: int, why: str = "") -> None:
        """Settle a row that the destination refused for good, or that can't be handled."""
        ...

    def given_up(
        self, rows: Sequence[Row], *, seconds: float, why: str, status: int | None
    ) -> None:
        """Settle rows of one model that failed for too long."""
        ...


class Shrinks(Protocol):
    """Makes rows smaller."""

    def shrink(self, row: Row) -> Row | None:
        """Return a smaller form of a row that is too large alone, or None."""
        ...


class Reduces(Protocol):
    """Makes rows harmless."""

    @property
    def reduces(self) -> bool:
        """Whether rows have a form that the destination takes whatever is in it."""
        ...

    def reduce(self, row: Row) -> Row | None:
        """Return that form of a row, or None when it has it already."""
        ...


FOR_ITS_CONTENT = frozenset({400, 422, 500})
"""The statuses of a row that the destination has refused for what is in it."""


@dataclass(slots=True, eq=False, kw_only=True)
class RowOutcomes:
    """Settles rows after an attempt, and writes down what happened to those that are left.

    Belongs to the worker's loop.

    Attributes:
        buffer: Takes a smaller form of a row in its place.
        journal: Writes down what happened to rows.
        deferred: Holds back ground truth that is to be sent again later.
        outlives_us: Whether the rows in the buffer outlive this process.
        settlement: Settles rows.
        ground_truth: Keeps ground truth whose inference the destination does not know yet.
        settings: For how long a row may fail.
        shrinker: Makes a row smaller that is too large alone.
        reducer: Makes a row harmless that is refused for its content.
        clock: The wall clock, for times that later processes read.
    """

    buffer: LeaseBuffer
    journal: DeliveryJournal
    deferred: DeferringBuffer
    outlives_us: bool
    settlement: Settles
    ground_truth: GroundTruthOrder
    settings: RelaySettings
    shrinker: Shrinks
    reducer: Reduces
    clock: Clock
    _wall_offset: float = 0.0

    def enter(self) -> None:
        """Get ready for a loop, also after an earlier one died."""
        self._wall_offset = self.clock.utc_now().timestamp() - anyio.current_time()

    def _now(self) -> float:
        """Return the time in seconds since 1970, which does not jump while the loop runs."""
        return anyio.current_time() + self._wall_offset

    def apply(self, delivery: Delivery, attempt: Attempt, *, urgent: bool) -> int:
        """Settle the rows that are delivered or rejected; the others stay in the delivery.

        Args:
            delivery: Its rows are those that were sent.
            attempt: Has an outcome for each of them.
            urgent: Whether the relay is closing.

        Returns:
            How many rows were delivered.
        """
        rows = delivery.rows
        if attempt.outcomes.count(DELIVERED) == len(rows):  # nearly always
            delivery.rows = ()
            self.settlement.delivered(rows)
            return len(rows)
        found = sort_rows(rows, attempt.outcomes)
        delivery.rows = tuple(found.again)
        if found.again:
            delivery.state.status = found.status
        if found.delivered:
            self.settlement.delivered(tuple(found.delivered))
        given_up = [pair for pair in found.not_yet if not self._postpone(pair[0], urgent=urgent)]
        rejected = [pair for pair in found.rejected if not self._make_harmless(delivery, *pair)]
        for refused, outcome in (*given_up, *rejected):
            row = self._original(delivery, refused)
            attempts = row.history.attempts + 1
            self.settlement.rejected(row, outcome, attempts=attempts, why=delivery.refusal)
        return len(found.delivered)

    def _postpone(self, row: Row, *, urgent: bool) -> bool:
        """Have ground truth sent again later. Returns False when it is to be given up instead.

        In a hurry only ground truth that would be lost with this process is given up early.
        """
        now, wall = anyio.current_time(), self._now()
        since = row.history.unknown_since
        waited = 0.0 if since is None else max(0.0, wall - since)
        is_last_chance = urgent and not self.outlives_us
        if not self.ground_truth.postpone(row, now, waited=waited, urgent=is_last_chance):
            return False
        note_unknown(row, wall)
        self.journal.note([row])
        self.deferred.put_off(self.ground_truth.beyond())
        return True

    def _make_harmless(self, delivery: Delivery, row: Row, outcome: Outcome) -> bool:
        """Replace a row that was refused for its content by its reduced form, once.

        Returns:
            Whether the delivery has the reduced form now, for another attempt.
        """
        if outcome.status not in FOR_ITS_CONTENT or not self.reducer.reduces:
            return False
        if row in delivery.originals:
            return False
        reduced = self._remade(row, self.reducer.reduce)
        if reduced is None:
            return False
        reduced.history = row.history
        self.buffer.replace(row, reduced)
        self.journal.note([reduced])
        delivery.originals[reduced] = row
        delivery.rows = (*delivery.rows, reduced)
        delivery.state.status = outcome.status
        return True

    def _original(self, delivery: Delivery, row: Row) -> Row:
        """Return the row that is to be set aside for one that is refused: as it was captured."""
        original = delivery.originals.pop(row, None)
        if original is None:
            return row
        original.history = row.history
        self.buffer.replace(row, original)
        return original

    def reject(self, delivery: Delivery, outcome: Outcome) -> None:
        """Reject the only row of a delivery."""
        (row,), delivery.rows = delivery.rows, ()
        self.settlement.rejected(row, outcome, attempts=row.history.attempts)

    def make_smaller(self, delivery: Delivery, outcome: Outcome) -> Row | None:
        """Replace the only row of a delivery by a smaller form of it.

        Returns:
            The smaller row, or None: there is none, and the row was rejected with the outcome.
        """
        (row,) = delivery.rows
        smaller = self._remade(row, self.shrinker.shrink)
        if smaller is None:
            self.reject(delivery, outcome)
            return None
        delivery.rows = ()
        smaller.history = row.history
        self.buffer.replace(row, smaller)
        self.journal.note([smaller])
        return smaller

    def _remade(self, row: Row, remake: Callable[[Row], Row | None]) -> Row | None:
        """Return another form of a row, or None. Nowhere else is a row decoded again."""
        # If that kills the worker, the next process knows which row it was.
        self.note_death([row])
        try:
            return remake(row)
        except Exception as error:  # noqa: BLE001 - it only means that the row stays as it is
            logger.warning("arthur-relay: a row could not be read: %s", safe_traceback(error))
            return None
        finally:
            note_survival([row])

    def note_attempt(self, delivery: Delivery) -> None:
        """Write down that the rows were sent in vain, also for a later process."""
        note_attempt(delivery.rows, self._now())
        self.journal.note(delivery.rows)

    def note_death(self, rows: Sequence[Row]) -> None:
        """Write down at once that the worker dies, or may die, while it handles rows."""
        note_death(rows)
        self.journal.note(rows, at_once=True)

    def excuse(self, delivery: Delivery) -> None:
        """Leave out of the rows' age the time for which Arthur refuses us access."""
        note_excuse(delivery.rows)
        self.journal.note(delivery.rows)

    def give_up_the_old(self, delivery: Delivery) -> None:
        """Drop the rows that have failed for too long."""
        now = self._now()
        oldest = now - self.settings.retry_max_elapsed_seconds
        old = tuple(row for row in delivery.rows if (row.history.since or now) <= oldest)
        self.give_up(delivery, old)

    def give_up(self, delivery: Delivery, rows: tuple[Row, ...]) -> None:
        """Drop rows of a delivery, which have failed for too long."""
        if rows:
            delivery.rows = tuple(row for row in delivery.rows if row not in rows)
            self.settlement.given_up(
                rows,
                seconds=self.settings.retry_max_elapsed_seconds,
                why=delivery.reason,
                status=delivery.state.status,
            )

    def deadline_of(self, delivery: Delivery) -> float:
        """Return when the last row will have failed for too long, on the loop's clock."""
        wall = self._now()
        ages = [wall - at for row in delivery.rows if (at := row.history.since) is not None]
        age = max(0.0, min(ages)) if len(ages) == len(delivery.rows) else 0.0
        return anyio.current_time() - age + self.settings.retry_max_elapsed_seconds
