"""Which runs become spans, and where in which trace: from the ids of runs, without any state.

A trace has the id of its root run, and a span the last 8 bytes of its run's id, so logs and other
tools can join them by the run ids that LangChain gives them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from arthur_relay.capture.otel_context import outer_span
from arthur_relay.capture.states import MessageCopies
from arthur_relay.inference import TraceContext, TraceScope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arthur_relay.inference import Run

RECENT_RUNS = 2_048
"""How many of the runs that ended last are remembered at least; twice as many at most."""


def below(run: Run) -> TraceContext:
    """Return the place of a traced run's children."""
    place = run.children
    if place is None:
        trace = run.trace
        trace_id = run.run_id.bytes if trace is None else trace.trace_id
        place = run.children = TraceContext(trace_id, run.run_id.bytes[8:], is_root=False)
    return place


class Tracing:
    """Finds the place of each run in its trace. Any thread; no lock.

    Tasks in the background start runs whose parent has ended a moment ago, so the runs that ended
    last are remembered: two generations of at most `RECENT_RUNS`, of which the older one is
    forgotten when the younger one is full. A run whose parent is neither open nor remembered is
    the root of a trace.

    Args:
        scope: Which runs become spans.

    Attributes:
        copies: Copies of the messages that runs were given, or None where runs have no state.
    """

    __slots__ = ("_older", "_recent", "copies", "scope")

    def __init__(self, scope: TraceScope) -> None:
        self.scope = scope
        self.copies = MessageCopies() if scope is TraceScope.FULL else None
        self._recent: dict[int, bytes] = {}  # the ids of their traces
        self._older: dict[int, bytes] = {}

    def place(
        self, run_id: UUID, *, parent: Run | None = None, parent_id: UUID | None = None
    ) -> TraceContext:
        """Return a run's place.

        Args:
            run_id: The run's id.
            parent: The open parent run, if it is known.
            parent_id: The parent run's id, if there is one.
        """
        if self.scope is TraceScope.LLM:
            return TraceContext(run_id.bytes, None, is_root=True)
        if parent is not None and parent.trace is not None:
            return parent.children or below(parent)
        if parent_id is not None:
            found = self._recent.get(parent_id.int) or self._older.get(parent_id.int)
            if found is not None:
                return TraceContext(found, parent_id.bytes[8:], is_root=False)
        return outer_span() or TraceContext(run_id.bytes, None, is_root=True)

    def trace_of(self, run_id: UUID, open_run: Run | None) -> UUID:
        """Return the id of a run's trace; the run's own when it is neither open nor remembered.

        Args:
            run_id: The run's id.
            open_run: The run, if it is open.
        """
        place = None if open_run is None else open_run.trace
        if place is not None:
            return UUID(bytes=place.trace_id)
        found = self._recent.get(run_id.int) or self._older.get(run_id.int)
        return run_id if found is None else UUID(bytes=found)

    def ended(self, run: Run) -> None:
        """Remember a run that has ended, for children that start later, and for feedback."""
        if self.scope is TraceScope.LLM:
            return  # each is a trace of its own, with the run's id
        if len(self._recent) >= RECENT_RUNS:
            self._older = self._recent  # two threads at once lose the older half early
            self._recent = {}
        trace = run.trace
        self._recent[run.run_id.int] = run.run_id.bytes if trace is None else trace.trace_id

    def remember(self, runs: Iterable[Run]) -> None:
        """Remember runs that go on in the parent of a forked process."""
        for run in runs:
            if run.trace is not None:
                self.ended(run)


NO_TRACING = Tracing(TraceScope.NONE)
"""For relays whose destination takes inferences."""
