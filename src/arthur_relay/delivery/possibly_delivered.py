"""Which rows Arthur may have already, because an answer was lost.

A destination that would store a row again is asked which rows it has before they are sent again.
Where a second one is refused, the refusal says so.

A row that was never sent before and gets a 409 has the id of another inference, and is rejected. If
it was sent before without an answer, the 409 means that it did arrive. Each row that an earlier
process left may have been sent when that process ended.
"""

from collections.abc import Iterable
from dataclasses import replace

import anyio

from arthur_relay.destinations import Destination, FindsStored
from arthur_relay.row import (
    DELIVERED,
    RECOVERED,
    Attempt,
    Batch,
    History,
    Outcome,
    Row,
    RowKind,
    Verdict,
)

CONFLICT = 409

STORING_SECONDS = 0.5
"""For how long a destination may still be storing what it was sent, after a connection was lost.
Arthur Engine stores fifty spans in 0.42 s."""


def _was_sent(history: History) -> bool:
    return bool(history.attempts or history.deaths or history.is_repeated)


class PossiblyDelivered:
    """The rows of one delivery that may have arrived without an answer. Immutable."""

    __slots__ = ("_rows", "_stored_at")

    def __init__(self, rows: Iterable[Row] = (), *, stored_at: float = 0.0) -> None:
        self._rows = frozenset(rows)
        self._stored_at = stored_at

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "PossiblyDelivered":
        """Return the rows that may have been sent before, according to their history."""
        return cls(row for row in rows if row.epoch == RECOVERED or _was_sent(row.history))

    async def deliver(self, destination: Destination, batch: Batch) -> Attempt:
        """Make an attempt to deliver a batch; what is found to be there already is not sent.

        Where some of the rows are there and others are not, the others are left for the next
        attempt, as after any answer about single rows.
        """
        asked = tuple(row for row in batch.rows if row in self._rows) if self._rows else ()
        if not asked or batch.kind is not RowKind.INFERENCE:  # nearly always
            return await destination.deliver(batch)
        if not isinstance(destination, FindsStored):
            return await destination.deliver(batch)
        await anyio.sleep_until(self._stored_at)
        answer = await destination.find_stored(Batch(batch.model_id, asked))
        if answer is None:
            return await destination.deliver(batch)
        outcomes = dict(zip(asked, answer.outcomes, strict=True))
        if answer.failure is None and DELIVERED not in answer.outcomes:
            return await destination.deliver(batch)
        again = Outcome(Verdict.RETRY) if answer.failure is None else answer.outcomes[0]
        return replace(answer, outcomes=tuple(outcomes.get(row, again) for row in batch.rows))

    def judge(self, attempt: Attempt, rows: tuple[Row, ...]) -> Attempt:
        """Return the attempt, with the rows delivered that got a 409 and may have been there.

        If several rows are refused together, it is not known which of them Arthur has.
        """
        if not self._rows or (attempt.failure is not None and len(rows) > 1):
            return attempt
        outcomes = tuple(
            DELIVERED if outcome.status == CONFLICT and row in self._rows else outcome
            for row, outcome in zip(rows, attempt.outcomes, strict=True)
        )
        if outcomes == attempt.outcomes:
            return attempt
        return replace(attempt, outcomes=outcomes, failure=None)

    def after(self, attempt: Attempt, rows: Iterable[Row]) -> "PossiblyDelivered":
        """Return the rows that may have arrived, after an attempt to send some more."""
        if not attempt.may_have_arrived:
            return self
        stored_at = anyio.current_time() + STORING_SECONDS
        return PossiblyDelivered({*self._rows, *rows}, stored_at=stored_at)
