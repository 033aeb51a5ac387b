"""Groups rows of one model and kind by count, bytes and age; pure, the time is an argument."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from arthur_relay.row import Batch, Row, RowKind

_Key = tuple[str, RowKind]


@dataclass(slots=True)
class _OpenBatch:
    opened_at: float
    size: int = 0
    rows: list[Row] = field(default_factory=list)


class Batcher:
    """Collects rows into batches.

    A batch closes when it has `max_rows`, when one more row would make it larger than
    `max_bytes`, or when its first row has waited `linger_seconds`. A single row larger than
    `max_bytes` travels alone. Rows of a model and kind leave in the order in which they came.

    Args:
        max_rows: Rows in a batch, 1 or more.
        max_bytes: Bytes in a batch, separators included.
        linger_seconds: How long the first row of a batch may wait for others, 0 or more.
    """

    def __init__(self, *, max_rows: int, max_bytes: int, linger_seconds: float) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._linger = linger_seconds
        self._open: dict[_Key, _OpenBatch] = {}
        self.rows = 0
        """Rows in batches that are open."""
        self.size = 0
        """Their bytes, separators included."""

    def add(self, rows: Iterable[Row], now: float) -> list[Batch]:
        """Take rows, and return the batches that are full because of them, oldest first."""
        full = []
        batches, max_rows, max_bytes = self._open, self._max_rows, self._max_bytes
        for row in rows:
            key, size = (row.model_id, row.kind), len(row.body) + 1  # `row.size`, without a call
            opened = batches.get(key)
            if opened is not None and opened.size + size > max_bytes:
                full.append(self._close(key))
                opened = None
            if opened is None:
                opened = batches[key] = _OpenBatch(opened_at=now)
            opened.rows.append(row)
            opened.size += size
            self.rows += 1
            self.size += size
            if len(opened.rows) >= max_rows or opened.size >= max_bytes:
                full.append(self._close(key))
        return full

    def due(self, now: float) -> list[Batch]:
        """Return the batches whose first row has waited long enough, oldest first."""
        ripe = [
            (batch.opened_at, key)
            for key, batch in self._open.items()
            if batch.opened_at + self._linger <= now
        ]
        return [self._close(key) for _, key in sorted(ripe)]

    def flush(self) -> list[Batch]:
        """Return all open batches, whatever their age."""
        return [self._close(key) for key in list(self._open)]

    def oldest(self) -> list[Batch]:
        """Return the batch that was opened first, whatever its age; none when none is open."""
        return [self._close(key) for key in list(islice(self._open, 1))]

    def next_due(self) -> float | None:
        """Return when the next batch will be due, or None when none is open."""
        opened = min((batch.opened_at for batch in self._open.values()), default=None)
        return None if opened is None else opened + self._linger

    def _close(self, key: _Key) -> Batch:
        closed = self._open.pop(key)
        self.rows -= len(closed.rows)
        self.size -= closed.size
        return Batch(key[0], tuple(closed.rows))
