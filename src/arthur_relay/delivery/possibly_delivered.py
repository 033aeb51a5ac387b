"""Which rows Arthur has already: those that it says are there, of which an answer was lost.

A row that was never sent before and is answered with 409 has somebody else's id, and is rejected.
One that was sent, and nobody heard what became of it, is there itself. Of what an earlier process
left, any row may have been on its way when that ended.
"""

from collections.abc import Iterable
from dataclasses import replace

from arthur_relay.row import DELIVERED, RECOVERED, Attempt, Row

CONFLICT = 409


class PossiblyDelivered:
    """The rows of one delivery that may have arrived without an answer. Immutable and pure."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = frozenset(rows)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "PossiblyDelivered":
        """Return those of which the rows themselves say that they may have been sent before."""
        return cls(
            row
            for row in rows
            if row.history.attempts or row.history.deaths or row.epoch == RECOVERED
        )

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
        return PossiblyDelivered({*self._rows, *rows}) if attempt.may_have_arrived else self
