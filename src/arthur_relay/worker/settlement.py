"""Settles captures and rows: everything that has to know of it, always in the same order.

The dead letter comes first, so that no crash can lose both the row and its letter. Then the buffer
forgets the row, the flush that waits for it continues, and the ledger counts it: in this order,
nobody ever reads more held rows than pending ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import Buffer, Loss
from arthur_relay.dead_letters import DeadLetter, DeadLetters
from arthur_relay.delivery.ground_truth import GroundTruthOrder
from arthur_relay.encoding.product import RowWords
from arthur_relay.errors import safe_traceback
from arthur_relay.inference import Capture
from arthur_relay.row import RECOVERED, Outcome, Row, RowKind, Verdict
from arthur_relay.sentences import named
from arthur_relay.stats import DropReason
from arthur_relay.system.clocks import Clock
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.worker_logs import WorkerLogger
from arthur_relay.worker.flush import FlushTracker

logger = WorkerLogger("arthur_relay.delivery")

TOO_LARGE = 413
"""The status of rows that are too large for Arthur even alone, and with their texts cut."""


@dataclass(slots=True, eq=False, kw_only=True)
class Settlement:
    """Settles captures and rows. Worker's loop only; never raises because of one row.

    Attributes:
        buffer: Forgets settled rows.
        ledger: Counts them.
        dead_letters: Keeps rows that were rejected or given up.
        flushes: The flushes that wait.
        ground_truth: Ground truth that waits until its inference is settled.
        destination: The name of the destination, for dead letters.
        clock: The time that dead letters carry.
        words: What the log calls a row.
    """

    buffer: Buffer
    ledger: Ledger
    dead_letters: DeadLetters
    flushes: FlushTracker
    ground_truth: GroundTruthOrder
    destination: str
    clock: Clock
    words: RowWords
    _once: LogOnce = field(default_factory=LogOnce)

    def delivered(self, rows: Sequence[Row]) -> None:
        """Settle rows of one model that the destination has acknowledged."""
        self._forget(rows)
        self.ledger.deliver(len(rows), rows[0].model_id)

    def rejected(self, row: Row, outcome: Outcome, *, attempts: int, why: str = "") -> None:
        """Settle a row that the destination refused for good, or that could not be handled.

        Args:
            row: The row.
            outcome: The reason, in a few words, and the status.
            attempts: How often it was sent.
            why: The reason in a sentence for the log, or "".
        """
        self._add_letter(row, outcome, attempts)
        self._forget((row,))
        self.ledger.reject(outcome.reason, 1, row.model_id)
        what = self.words.truth if row.kind is RowKind.GROUND_TRUTH else self.words.one
        said = why or outcome.reason
        if outcome.status == TOO_LARGE:
            said += f"; {named('max_text_bytes')} cuts its texts before they are sent"
        self._log_once(f"rejected {outcome.reason}", f"Arthur rejected {what}: {said}")

    def given_up(
        self, rows: Sequence[Row], *, seconds: float, why: str, status: int | None
    ) -> None:
        """Settle rows of one model that failed for too long.

        Args:
            rows: The rows.
            seconds: For how many seconds.
            why: Why the last attempt failed.
            status: The HTTP status of the last attempt, or None.
        """
        reason = DropReason.RETRY_TIME_EXCEEDED
        for row in rows:
            letter = Outcome(Verdict.REJECTED, reason.value, status)
            self._add_letter(row, letter, row.history.attempts)
        self._forget(rows)
        self.ledger.drop_held(reason, len(rows), rows[0].model_id)
        self._log_once(
            reason.value,
            f"gave up rows that could not be delivered for {seconds:g} s, the limit of"
            f" {named('retry_max_elapsed_seconds')}: {why.rstrip('.')}",
        )

    def returned(self, rows: Sequence[Row]) -> None:
        """Settle rows of one model that went back to the broker; any worker delivers them."""
        self._forget(rows)
        self.ledger.give_back(len(rows), rows[0].model_id)

    def evicted(self, row: Row) -> None:
        """Settle a row that the buffer has given up for newer ones."""
        self.ledger.drop_held(DropReason.OVERFLOW, 1, row.model_id)
        self.flushes.settle(1, row.epoch)

    def lost(self, loss: Loss) -> None:
        """Settle rows that the buffer has lost."""
        if loss.rows:
            self.ledger.lose_held(
                DropReason.LOST_IN_SPOOL, loss.rows, self.buffer.durable.rows_by_model
            )
            for epoch, rows in loss.epochs.items():
                self.flushes.settle(rows, epoch)
            self.flushes.settle(loss.rows - sum(loss.epochs.values()), RECOVERED)

    def dropped(self, reason: DropReason, rows: int, epoch: int) -> None:
        """Settle rows of captures that are given up before the buffer holds them.

        Args:
            reason: Why.
            rows: The number of rows.
            epoch: The epoch that the captures were taken in.
        """
        self.ledger.drop(reason, rows)
        self.flushes.settle(rows, epoch)

    def refused(self, capture: Capture, reason: str, epoch: int, rows: Sequence[Row]) -> None:
        """Settle a capture that the destination would not take.

        Args:
            capture: The capture.
            reason: Why, in a few words.
            epoch: The epoch that it was taken in.
            rows: Its dead letters.
        """
        self.ledger.reject(reason, capture.rows, capture.model_id)
        self.flushes.settle(capture.rows, epoch)
        for row in rows:
            self._add_letter(row, Outcome(Verdict.REJECTED, reason), 0)

    def _forget(self, rows: Sequence[Row]) -> None:
        self.buffer.leases.settle(rows)
        self.flushes.settle_all([row.epoch for row in rows])
        self.ground_truth.settled(rows)

    def _add_letter(self, row: Row, outcome: Outcome, attempts: int) -> None:
        try:
            self.dead_letters.add(
                DeadLetter(
                    inference_id=row.id,
                    model_id=row.model_id,
                    kind=row.kind,
                    reason=outcome.reason,
                    said=outcome.said,
                    status=outcome.status,
                    attempts=attempts,
                    rejected_at=self.clock.utc_now(),
                    destination=self.destination,
                    body=row.body,
                ),
                self.buffer.journal.retain(row),
            )
        except BaseException as error:  # noqa: BLE001 - it must cost the letter, no more
            self._log_once("letter", f"a dead letter could not be made: {safe_traceback(error)}")

    def _log_once(self, kind: str, text: str) -> None:
        """Log the first of a kind; a line for each would flood whoever is on call."""
        if self._once.is_first(kind):
            logger.warning("arthur-relay: %s (more of this kind are counted in stats() only)", text)
