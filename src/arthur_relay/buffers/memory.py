"""The buffer in memory: bounded by count and bytes, oldest rows first, compressed on demand."""

import bz2
import marshal
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from arthur_relay.row import Row

ROW_OVERHEAD_BYTES = 400
"""What a row costs beside its body: the objects around it, measured with tracemalloc."""

BLOCK_BYTES = 512 * 1024
"""Rows that are compressed together: 50 ms of work at most, outside of the interpreter lock."""

BZ2_LEVEL = 6
"""The level at which bz2 looks at 600 KB at once, which holds a block."""

ZLIB_LEVEL = 4
"""The last one before the time that zlib takes doubles."""

BLOCK_OVERHEAD_BYTES = 300
"""What a compressed block costs beside its data, measured with tracemalloc."""


def memory_size(row: Row) -> int:
    """Return the bytes that a row takes in memory, as accounted."""
    return len(row.body) + ROW_OVERHEAD_BYTES


@dataclass(slots=True, eq=False)
class _Block:
    """Rows that wait next to each other: as they are, or compressed."""

    rows: list[Row] = field(default_factory=list)
    count: int = 0
    size: int = 0
    data: bytes = b""
    decompress: Callable[[bytes], bytes] = bz2.decompress

    def add(self, row: Row, size: int) -> None:
        self.rows.append(row)
        self.count += 1
        self.size += size

    @property
    def is_quick(self) -> bool:
        """Whether it was compressed quickly, and could be smaller."""
        return bool(self.data) and self.decompress is zlib.decompress

    def compress(self, *, quickly: bool) -> None:
        # Of rows of 2 KB of English, bz2 leaves 27 % and takes 140 us a row; zlib leaves 39 % and
        # takes 37 us. marshal, because it never leaves the process.
        plain = marshal.dumps([_fields(row) for row in self.open()])
        if quickly:
            self.data, self.decompress = zlib.compress(plain, ZLIB_LEVEL), zlib.decompress
        else:
            self.data, self.decompress = bz2.compress(plain, BZ2_LEVEL), bz2.decompress
        self.size = len(self.data) + BLOCK_OVERHEAD_BYTES
        self.rows = []

    def open(self) -> list[Row]:
        """Return the rows."""
        if not self.data:
            return self.rows
        return [Row(*fields) for fields in marshal.loads(self.decompress(self.data))]  # noqa: S302 - written by us, above


def _fields(row: Row) -> tuple[str, str, bytes, int, int]:
    # Ids are the application's: marshal refuses those whose type is derived from str.
    names = str.__str__(row.id), str.__str__(row.model_id)
    return *names, row.body, row.epoch, row.shrunk


class MemoryBuffer:
    """Rows in blocks, leased ones in a dict. See `Buffer` for what each method does.

    Made compact, it keeps the blocks that will be needed last compressed: a longer outage fits
    into the same memory.

    Args:
        max_rows: Rows it holds, at most.
        max_bytes: Bytes it holds, at most, overhead included.
    """

    def __init__(self, *, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._head: deque[Row] = deque()
        self._blocks: deque[_Block] = deque()
        self._filling = _Block()
        self._plain: deque[_Block] = deque()
        self._leased: dict[Row, None] = {}
        self._waiting = 0
        self._size = 0

    @property
    def rows(self) -> int:
        """Rows held, leased ones included."""
        return self._waiting + len(self._leased)

    @property
    def size(self) -> int:
        """Bytes held, leased ones included."""
        return self._size

    @property
    def waiting(self) -> int:
        """Rows that can be leased."""
        return self._waiting

    def has_room(self, *, rows: int, size: int) -> bool:
        """Say whether that many more rows fit in; an empty buffer takes one of any size."""
        held = self._waiting + len(self._leased)
        if held == 0 and rows <= 1:
            return True
        taken = self._size + size + rows * ROW_OVERHEAD_BYTES
        return held + rows <= self._max_rows and taken <= self._max_bytes

    def put(self, rows: Sequence[Row]) -> None:
        """Hold rows."""
        block = self._filling
        for row in rows:
            size = len(row.body) + ROW_OVERHEAD_BYTES
            self._size += size
            block.add(row, size)
            if block.size >= BLOCK_BYTES:
                self._close_block()
                block = self._filling
        self._waiting += len(rows)

    def compact(self, *, quickly: bool = False) -> bool:
        """Compress the newest plain block, which will be needed last."""
        if not self._plain:
            return False
        self._compress(self._plain.pop(), quickly=quickly)
        return True

    def compact_further(self) -> bool:
        """Compress better the newest block that was compressed quickly."""
        block = next((block for block in reversed(self._blocks) if block.is_quick), None)
        if block is None:
            return False
        self._compress(block, quickly=False)
        return True

    def lease(self, limit: int) -> list[Row]:
        """Return the oldest waiting rows, `limit` at most; they stay held."""
        leased: list[Row] = []
        head = self._head
        while len(leased) < limit and (head or self._open_block()):
            leased.append(head.popleft())
        self._waiting -= len(leased)
        self._leased.update(dict.fromkeys(leased))
        return leased

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows."""
        for row in rows:
            if row in self._leased:
                del self._leased[row]
                self._size -= memory_size(row)

    def replace(self, old: Row, new: Row) -> None:
        """Hold a smaller form of a leased row in its place."""
        self.settle([old])
        self._leased[new] = None
        self._size += memory_size(new)

    def evict(self) -> Row | None:
        """Forget the oldest waiting row and return it."""
        if not self._head and not self._open_block():
            return None
        row = self._head.popleft()
        self._waiting -= 1
        self._size -= memory_size(row)
        return row

    def release_all(self) -> None:
        """Make every leased row wait again, before the others."""
        self._head.extendleft(reversed(self._leased))
        self._waiting += len(self._leased)
        self._leased.clear()

    def _compress(self, block: _Block, *, quickly: bool) -> None:
        self._size -= block.size
        block.compress(quickly=quickly)
        self._size += block.size

    def _close_block(self) -> None:
        self._blocks.append(self._filling)
        self._plain.append(self._filling)
        self._filling = _Block()

    def _open_block(self) -> bool:
        """Take the oldest block apart for the head, which is empty; False when there is none."""
        if not self._blocks:
            if not self._filling.count:
                return False
            self._close_block()
        block = self._blocks.popleft()
        # The plain blocks are in the same order, so this one is their first or not among them.
        if self._plain and self._plain[0] is block:
            self._plain.popleft()
        rows = block.open()
        if block.data:
            self._size += sum(map(memory_size, rows)) - block.size
        self._head.extend(rows)
        return True
