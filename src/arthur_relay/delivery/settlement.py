"""What became of rows that were on their way, said once: letter, then buffer, flush, ledger."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import LeaseBuffer
from arthur_relay.errors import safe_traceback
from arthur_relay.row import Outcome, Row, Verdict
from arthur_relay.stats import DropReason
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.delivery")


@dataclass(slots=True, eq=False, kw_only=True)
class Settlement:
    """Settles rows. Worker's loop only.

    Attributes:
        buffer: Forgets what is settled.
        ledger: Counts it.
        settled: Told of rows that are done with, however.
        dead: Told of each row that was rejected or given up, why, and after how many attempts.
    """

    buffer: LeaseBuffer
    ledger: Ledger
    settled: Callable[[Sequence[Row]], None]
    dead: Callable[[Row, Outcome, int], None]
    _told: set[str] = field(default_factory=set)

    def delivered(self, rows: Sequence[Row]) -> None:
        """Settle rows of one model that Arthur has acknowledged."""
        self._forget(rows)
        self.ledger.deliver(len(rows), rows[0].model_id)

    def rejected(self, row: Row, outcome: Outcome, *, attempts: int, why: str = "") -> None:
        """Settle a row that Arthur refused for good, or that can't be handled.

        Args:
            row: The row.
            outcome: The reason, in a few words, and the status.
            attempts: How often it was sent.
            why: The reason in a sentence, for the log, where there is one.
        """
        self.bury(row, outcome, attempts)
        self._forget((row,))
        self.ledger.reject(outcome.reason, 1, row.model_id)
        self._tell(
            f"rejected {outcome.reason}", f"Arthur rejected an inference: {why or outcome.reason}"
        )

    def given_up(
        self, rows: Sequence[Row], *, seconds: float, why: str, status: int | None
    ) -> None:
        """Settle rows of one model that failed for too long.

        Args:
            rows: The rows.
            seconds: For how long.
            why: What the last attempt failed of.
            status: The HTTP status that said so, or None.
        """
        reason = DropReason.RETRY_TIME_EXCEEDED
        for row in rows:
            letter = Outcome(Verdict.REJECTED, reason.value, status)
            self.bury(row, letter, row.history.attempts)
        self._forget(rows)
        self.ledger.drop_held(reason, len(rows), rows[0].model_id)
        self._tell(
            reason.value, f"gave up rows that could not be delivered for {seconds:g} s: {why}"
        )

    def _forget(self, rows: Sequence[Row]) -> None:
        """Forget rows; before they are counted, so that no one finds more held than pending."""
        self.buffer.settle(rows)
        self.settled(rows)

    def bury(self, row: Row, outcome: Outcome, attempts: int) -> None:
        """Make a dead letter of a row. Never raises: one that can't be made costs no more."""
        try:
            self.dead(row, outcome, attempts)
        except BaseException as error:  # noqa: BLE001 - see above
            self._tell("letter", f"a dead letter could not be made: {safe_traceback(error)}")

    def _tell(self, kind: str, text: str) -> None:
        """Log the first of a kind; a line for each would flood whoever is on call."""
        if kind not in self._told:
            self._told.add(kind)
            logger.warning("arthur-relay: %s (more of this kind are counted in stats() only)", text)
