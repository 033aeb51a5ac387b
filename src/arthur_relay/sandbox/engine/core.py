"""The core of the Engine: what it does with spans, tasks and annotations, apart from HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arthur_relay.sandbox.engine.spans import Span, read_request
from arthur_relay.sandbox.engine.store import EngineStore, StoredSpan, UnknownTaskError
from arthur_relay.sandbox.engine.validation import breakage, rejection
from arthur_relay.sandbox.engine.views import trace_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arthur_relay.sandbox.engine.keys import Role
    from arthur_relay.sandbox.faults import Fault
    from arthur_relay.sandbox.journal import Journal


class BrokenStatementError(RuntimeError):
    """The database can't take a request; the text quotes what was in it, as the Engine's does."""


@dataclass(frozen=True, slots=True)
class EngineCore:
    """One sandbox's Engine. Methods block: not for a loop's thread.

    Attributes:
        store: What it remembers.
        keys: Who may call it, by key; may be changed at any time.
        journal: What was asked of it.
        max_body_bytes: The longest body of spans; None sets no limit.
    """

    store: EngineStore
    keys: dict[str, Role]
    journal: Journal
    max_body_bytes: int | None

    def add_spans(self, body: bytes, row_faults: Sequence[Fault]) -> dict[str, Any]:
        """Store the good spans of a request.

        Args:
            body: The request's body.
            row_faults: Faults of spans, by index or by `traceid-spanid`: a status of 500 or more
                fails the request, any other rejects the span.

        Returns:
            The answer: counts, and the reasons of those that were rejected, in order.

        Raises:
            NotProtobufError: The body is no such request; nothing is stored.
            NoLibraryError: The library that reads it is not installed.
            BrokenStatementError: Something in it is more than the database takes; nothing is
                stored.
        """
        spans = read_request(body)
        good: list[Span] = []
        rejected: list[tuple[str, str]] = []
        for index, span in enumerate(spans):
            row_id = f"{span.trace_id}-{span.span_id}"
            statuses = [fault.row_status(index, row_id) or 0 for fault in row_faults]
            if any(status >= 500 for status in statuses):
                raise BrokenStatementError(_statement("the sandbox was told to fail", spans))
            if any(statuses):
                reason: str | None = "the sandbox was told to reject this span"
            else:
                reason = rejection(span)
            if reason is None:
                good.append(span)
            else:
                rejected.append((row_id, reason))
        known = self._add(good)
        self.journal.count_rows(stored=len(good), duplicates=sum(known), rejected=rejected)
        status = "partial_success" if good else "failure"
        return {
            "total_spans": len(spans),
            "accepted_spans": len(good),
            "rejected_spans": len(rejected),
            "rejection_reasons": [reason for _, reason in rejected],
            "status": status if rejected else "success",
        }

    def _add(self, spans: Sequence[Span]) -> list[bool]:
        """Store spans, all or none.

        Raises:
            BrokenStatementError: The database can't take one of them.
        """
        for span in spans:
            problem = breakage(span)
            if problem is not None:
                raise BrokenStatementError(_statement(problem, spans))
        try:
            return self.store.add(spans)
        except UnknownTaskError as error:
            raise BrokenStatementError(_statement(str(error), spans)) from None

    def traces(self, *, before: int | None, limit: int) -> dict[str, Any]:
        """Return a page of traces, newest first, with long texts cut.

        Returns:
            `traces`, and in `next` what to give as `before` for the page after, or None.
        """
        found = self.store.traces(before=before, limit=limit + 1)
        return {
            "traces": [
                {**self.view(spans, is_full=False), "seq": spans[-1].seq} for spans in found[:limit]
            ],
            "next": found[limit - 1][-1].seq if len(found) > limit else None,
        }

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """Return a trace with its spans as a tree, or None when it is unknown."""
        spans = self.store.trace(trace_id)
        return self.view(spans, is_full=True) if spans else None

    def view(self, spans: Sequence[StoredSpan], *, is_full: bool) -> dict[str, Any]:
        """Return a trace of which there are spans."""
        annotation = self.store.annotation(spans[0].span.trace_id)
        return trace_view(spans, annotation, is_full=is_full)


def _statement(problem: str, spans: Iterable[Span]) -> str:
    # The real one quotes the statement with its parameters, which are prompts among others.
    quoted = [str(span.attributes.get("input.value", ""))[:200] for span in spans]
    return f"(psycopg2.DataError) {problem} [SQL: INSERT INTO spans ...] [parameters: {quoted}]"
