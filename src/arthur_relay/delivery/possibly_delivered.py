"""Which rows Arthur has already: those that it says are there, of which an answer was lost.

Where a row that is sent again would be stored again, the destination is asked before. Where a
second one is refused, the refusal says it.

A row that was never sent before and is answered with 409 has somebody else's id, and is rejected.
One that was sent, and nobody heard what became of it, is there itself. Of what an earlier process
left, any row may have been on its way when that ended.
"""

from collections.abc import Iterable
from dataclasses import replace

import anyio

from arthur_relay.destinations import Destination, FindsStored
from arthur_relay.row import DELIVERED, RECOVERED, Attempt, Batch, Outcome, Row, RowKind, Verdict

CONFLICT = 409

STORING_SECONDS = 0.5
"""For how long a destination may still be storing what it was sent, after a connection was lost.
Arthur Engine stores fifty spans in 0.42 s."""


class PossiblyDelivered:
    """The rows of one delivery that may have arrived unheard. Immutable."""

    __slots__ = ("_rows", "_stored_at")

    def __init__(self, rows: Iterable[Row] = (), *, stored_at: float = 0.0) -> None:
        self._rows = frozenset(rows)
        self._stored_at = stored_at

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "PossiblyDelivered":
        """Return those of which the rows themselves say that they may have been sent before."""
        return cls(
            row
            for row in rows
            if row.history.attempts or row.history.deaths or row.epoch == RECOVERED
        )

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
        """Return an attempt with those rows delivered that are said to be there already.

        Of several rows that are refused together nobody can say which are meant.
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
        """Return those that there are after an attempt to send some rows."""
        if not attempt.is_unheard:
            return self
        stored_at = anyio.current_time() + STORING_SECONDS
        return PossiblyDelivered({*self._rows, *rows}, stored_at=stored_at)
