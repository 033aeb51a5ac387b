"""The buffer in memory: bounded by count and bytes, oldest rows first."""

from collections import deque
from collections.abc import Iterable

from arthur_relay.row import Row

ROW_OVERHEAD_BYTES = 400
"""What a row costs beside its body: the objects around it, measured with tracemalloc."""


def memory_size(row: Row) -> int:
    """Return the bytes that a row takes in memory, as accounted."""
    return len(row.body) + ROW_OVERHEAD_BYTES


class MemoryBuffer:
    """Rows in a deque, leased ones in a dict. See `Buffer` for what each method does.

    Args:
        max_rows: Rows it holds, at most.
        max_bytes: Bytes it holds, at most, overhead included.
    """

    def __init__(self, *, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._waiting: deque[Row] = deque()
        self._leased: dict[int, Row] = {}
        self._size = 0

    @property
    def rows(self) -> int:
        """Rows held, leased ones included."""
        return len(self._waiting) + len(self._leased)

    @property
    def size(self) -> int:
        """Bytes held, leased ones included."""
        return self._size

    @property
    def waiting(self) -> int:
        """Rows that can be leased."""
        return len(self._waiting)

    def has_room(self, *, rows: int, size: int) -> bool:
        """Say whether that many more rows fit in; an empty buffer takes one of any size."""
        if self.rows == 0 and rows <= 1:
            return True
        taken = self._size + size + rows * ROW_OVERHEAD_BYTES
        return self.rows + rows <= self._max_rows and taken <= self._max_bytes

    def put(self, row: Row) -> None:
        """Hold a row."""
        self._waiting.append(row)
        self._size += memory_size(row)

    def lease(self) -> Row | None:
        """Return the oldest waiting row, which stays held."""
        if not self._waiting:
            return None
        row = self._waiting.popleft()
        self._leased[id(row)] = row
        return row

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows."""
        for row in rows:
            if self._leased.pop(id(row), None) is not None:
                self._size -= memory_size(row)

    def replace(self, old: Row, new: Row) -> None:
        """Hold a smaller form of a leased row in its place."""
        self.settle([old])
        self._leased[id(new)] = new
        self._size += memory_size(new)

    def evict(self) -> Row | None:
        """Forget the oldest waiting row and return it."""
        if not self._waiting:
            return None
        row = self._waiting.popleft()
        self._size -= memory_size(row)
        return row

    def release_all(self) -> None:
        """Make every leased row wait again, before the others."""
        self._waiting.extendleft(reversed(self._leased.values()))
        self._leased.clear()
