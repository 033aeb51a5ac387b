"""Which rows Arthur may have already, because an answer was lost.

A row that was never sent before and gets a 409 has the id of another inference, and is rejected. If
it was sent before without an answer, the 409 means that it did arrive. Each row that an earlier
process left may have been sent when that process ended.
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
        """Return the rows that may have been sent before, according to their history."""
        return cls(
            row
            for row in rows
            if row.history.attempts or row.history.deaths or row.epoch == RECOVERED
        )

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
        return PossiblyDelivered({*self._rows, *rows}) if attempt.may_have_arrived else self
