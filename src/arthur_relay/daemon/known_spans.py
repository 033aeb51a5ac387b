"""Remembers the spans that came lately: for feedback, and for clients that got no answer."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from arthur_relay.destinations.engine.row_ids import RowId
from arthur_relay.row import RowKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from arthur_relay.dead_letters import DeadLetter
    from arthur_relay.row import Row

SPANS_KEPT: Final = 20_000
"""Spans that are remembered, at most; one takes about 300 bytes, and so does its trace."""


class KnownTrace(NamedTuple):
    """A trace of which a span was taken.

    Attributes:
        model_id: Its task.
        row_id: The id of the row that ends it: its root's, else that of the span that came last.
        has_root: Whether that is the root's.
    """

    model_id: str
    row_id: str
    has_root: bool


@dataclass(slots=True, eq=False)
class KnownSpans:
    """Spans, by their rows. For the daemon's loop only, but for `on_dead_letter`.

    A span that became a dead letter is not known any more, nor ever again: whoever sends it once
    more means that.

    Attributes:
        most: How many are remembered, and how many traces.
    """

    most: int = SPANS_KEPT
    _spans: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    _traces: dict[str, KnownTrace] = field(default_factory=dict)
    _on_their_way: set[str] = field(default_factory=set)
    _rejected: dict[str, None] = field(default_factory=dict)

    def on_dead_letter(self, letter: DeadLetter) -> None:
        """Know a span no longer that could not be delivered. One thread, which may be another."""
        if letter.kind is RowKind.INFERENCE:
            self._rejected[letter.inference_id] = None
            _forget_oldest(self._rejected, self.most)

    def add(self, rows: Iterable[Row], roots: Collection[Row]) -> None:
        """Remember rows that are safe."""
        for row in rows:
            self._spans[row.id] = row.model_id, _digest(row.body)
            trace_id = RowId.parse(row.id).trace_id
            before = self._traces.get(trace_id)
            is_root = row in roots
            if before is None or is_root or not before.has_root:
                self._traces[trace_id] = KnownTrace(row.model_id, row.id, is_root)
        _forget_oldest(self._spans, self.most)
        _forget_oldest(self._traces, self.most)

    def without_known(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that were not taken before, byte for byte: others are sent again."""
        return [
            row
            for row in rows
            if (known := self._spans.get(row.id)) is None
            or row.id in self._rejected
            or known != (row.model_id, _digest(row.body))
        ]

    @contextmanager
    def on_their_way(self, rows: Sequence[Row]) -> Iterator[bool]:
        """Remember within the block that rows are being made safe.

        Yields:
            Whether some are already, for an earlier request: nobody knows yet what becomes of them.
        """
        ids = {row.id for row in rows}
        if not self._on_their_way.isdisjoint(ids):
            yield True
            return
        self._on_their_way |= ids
        try:
            yield False
        finally:
            self._on_their_way -= ids

    def task_of(self, row_id: str) -> str | None:
        """Return the task of a span that was taken, by the id of its row, or None."""
        found = self._spans.get(row_id)
        return None if found is None else found[0]

    def with_span_ids(self, span_ids: Collection[str]) -> list[str]:
        """Return the ids of the rows of the spans with some ids. Reads all of them."""
        wanted = frozenset(span_ids)
        return [
            row_id
            for row_id in self._spans
            if RowId.parse(row_id).span_id in wanted and row_id not in self._rejected
        ]

    def trace(self, trace_id: str) -> KnownTrace | None:
        """Return a trace of which a span was taken, or None."""
        return self._traces.get(trace_id)


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=8).digest()


def _forget_oldest(found: dict[str, Any], most: int) -> None:
    while len(found) > most:
        del found[next(iter(found))]
