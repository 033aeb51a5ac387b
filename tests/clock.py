"""A clock that a test sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

STARTED_AT = datetime(2026, 11, 23, 12, 30, 5, tzinfo=UTC)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, started_at: datetime = STARTED_AT) -> None:
        self.now = 0.0
        self.started_at = started_at

    def monotonic(self) -> float:
        return self.now

    def utc_now(self) -> datetime:
        return self.started_at + timedelta(seconds=self.now)
