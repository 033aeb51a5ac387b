"""Feedback on traces as it is kept in rows, and the order in which users gave it.

The Engine keeps one annotation a trace: whichever came last. A row that is sent again after a
failure may come later than one that is newer, so each row says when it became known.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import orjson

KNOWN_AT = "known_at"
"""When the judgement was given, in seconds since 1970; kept in the row and not sent."""

MOST_TRACES = 10_000
"""Of how many traces the last feedback is remembered: some 2 MB."""


class Feedback(NamedTuple):
    """One row's feedback.

    Attributes:
        body: The annotation, as the Engine takes it.
        known_at: When it was given, in seconds since 1970, or None when the row does not say.
    """

    body: bytes
    known_at: float | None


def feedback_body(values: Mapping[str, Any], known_at: float) -> bytes:
    """Return the body of a row.

    Args:
        values: The annotation.
        known_at: When it was given, in seconds since 1970.
    """
    return orjson.dumps({**values, KNOWN_AT: known_at})


def read_feedback(body: bytes) -> Feedback:
    """Return what a row's body holds. A body that says no time is sent as it is."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Feedback(body, None)
    if not isinstance(found, dict) or KNOWN_AT not in found:
        return Feedback(body, None)
    known_at = found.pop(KNOWN_AT)
    is_time = isinstance(known_at, (int, float)) and not isinstance(known_at, bool)
    return Feedback(orjson.dumps(found), float(known_at) if is_time else None)


class NewestFeedback:
    """Remembers when the newest feedback was given that a trace has. Loop's thread only."""

    def __init__(self) -> None:
        self._known_at: dict[str, float] = {}
        self._turns: dict[str, anyio.Lock] = {}

    @asynccontextmanager
    async def turn(self, trace_id: str) -> AsyncIterator[None]:
        """Wait until nobody else sends feedback of a trace.

        Of two requests at the same time, nobody knows which one the Engine takes last.
        """
        lock = self._turns.setdefault(trace_id, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            found = lock.statistics()
            if not (found.locked or found.tasks_waiting):
                self._turns.pop(trace_id, None)

    def is_outdated(self, trace_id: str, known_at: float | None) -> bool:
        """Return whether the Engine has newer feedback of a trace than that of this time."""
        newest = self._known_at.get(trace_id)
        return newest is not None and known_at is not None and known_at < newest

    def sent(self, trace_id: str, known_at: float | None) -> None:
        """Take note of feedback that the Engine has taken."""
        if known_at is None:
            return
        self._known_at[trace_id] = max(known_at, self._known_at.pop(trace_id, known_at))
        if len(self._known_at) > MOST_TRACES:
            del self._known_at[next(iter(self._known_at))]
