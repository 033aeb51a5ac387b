"""The buffer in memory: bounded by count and bytes, oldest rows first, compressed on demand."""

import bz2
import marshal
import mmap
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import Any

from arthur_relay.buffers import (
    ANY_BYTES,
    Buffer,
    Compaction,
    attempts_rank,
    inferences_among,
)
from arthur_relay.row import NO_HISTORY, History, Row, RowKind, body_bytes
from arthur_relay.settings import RelaySettings
from arthur_relay.system.operating_system import private_pages

ROW_OVERHEAD_BYTES = 400
"""The bytes of a row without its body, for its objects; measured with tracemalloc."""

BLOCK_BYTES = 2 * 1024 * 1024
"""The bytes that are compressed together: 0.15 s of work outside the interpreter lock.

The compressor asks for the lock whenever its output outgrows its memory, half a dozen times per
block, and each time waits 5 ms where other threads compute. With a quarter of the size, it would
compress two thirds as many rows per second.
"""

SMALLEST_PART = 4
"""When no room is left, an incomplete block is compressed if one part in this many is full."""

BLOCKS = 16
"""A small buffer is divided into at least this many blocks, to have any to compress."""

BZ2_LEVEL = 9
"""bz2 sorts 900 KB at once: its output is a twentieth smaller than at 600 KB, in the same time."""

ZLIB_LEVEL = 4
"""The highest level before zlib's time doubles."""

BLOCK_OVERHEAD_BYTES = 300
"""The bytes of a compressed block without its data, measured with tracemalloc."""


def memory_size(row: Row) -> int:
    """Return the bytes that a row takes in memory."""
    return len(row.body) + ROW_OVERHEAD_BYTES


Piece = bytes | mmap.mmap
Decompress = Callable[[Piece], Piece]


def _as_it_is(data: Piece) -> Piece:
    return data


def _pages_of(data: bytes) -> mmap.mmap:
    """Return a copy in its own memory pages.

    Large pieces that come and go leave holes in the allocator's memory, which it never gives back:
    half as much again as the pieces themselves.
    """
    pages = private_pages(len(data))
    pages[:] = data
    return pages


@dataclass(slots=True, eq=False)
class _Block:
    """Neighbouring rows that wait: as objects, or as one piece of bytes, compressed or not."""

    rows: list[Row] = field(default_factory=list)
    count: int = 0
    size: int = 0
    data: Piece = b""
    decompress: Decompress = _as_it_is
    waits: bool = True
    models: set[str] = field(default_factory=set)

    def add(self, rows: Sequence[Row], size: int) -> None:
        self.rows += rows
        self.models.update([row.model_id for row in rows])
        self.count += len(rows)
        self.size += size

    def pack(self) -> bytes:
        """Return the rows as one piece. Marshal is safe, as the piece never leaves the process."""
        return marshal.dumps([_fields(row) for row in self.rows])

    def become(self, data: bytes, decompress: Decompress) -> None:
        """Replace the rows by one piece of bytes."""
        self.data, self.decompress = _pages_of(data), decompress
        self.size = len(data) + BLOCK_OVERHEAD_BYTES
        self.rows = []

    def open(self) -> list[Row]:
        """Return the rows."""
        if not self.data:
            return self.rows
        packed = marshal.loads(self.decompress(self.data))  # noqa: S302 - written by us, above
        return [
            Row(name, model, body, epoch, shrunk, RowKind(kind), _history(*past))
            for name, model, body, epoch, shrunk, kind, past in packed
        ]


def _history(*past: Any) -> History:
    return History(*past) if past else NO_HISTORY


def _fields(row: Row) -> tuple[object, ...]:
    # Marshal refuses subclasses of str, which the application's ids may be.
    names = str.__str__(row.id), str.__str__(row.model_id)
    history = () if row.history is NO_HISTORY else astuple(row.history)
    return *names, row.body, row.epoch, row.shrunk, str.__str__(row.kind), history


@dataclass(slots=True, eq=False)
class _Apart:
    """Rows of a model that were released or passed over, those sent least often first.

    Rows that failed alone were sent most often. So they do not block those that failed in a batch
    with them.
    """

    queues: dict[int, deque[Row]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum([len(queue) for queue in self.queues.values()])

    def add(self, row: Row) -> None:
        self.queues.setdefault(attempts_rank(row), deque()).append(row)

    def take(self, limit: int, most_bytes: int) -> list[Row]:
        taken: list[Row] = []
        for attempts in sorted(self.queues):
            queue = self.queues[attempts]
            some = _take(queue, limit - len(taken), most_bytes)
            most_bytes -= body_bytes(some)
            taken += some
            if queue:
                break
            del self.queues[attempts]
        return taken


def _take(rows: deque[Row], limit: int, most_bytes: int) -> list[Row]:
    """Take the first rows; the last one may exceed `most_bytes`."""
    taken: list[Row] = []
    while rows and len(taken) < limit and most_bytes > 0:
        row = rows.popleft()
        taken.append(row)
        most_bytes -= len(row.body)
    return taken


@dataclass(slots=True, eq=False)
class _BlockCompaction:
    """The compression of one block. See `Compaction` for each method."""

    buffer: "MemoryBuffer"
    block: _Block
    quickly: bool
    data: bytes = b""
    _plain: Callable[[], Piece] = field(init=False)

    def __post_init__(self) -> None:
        # The current data, because the worker may change the block meanwhile.
        self._plain = partial(self.block.decompress, self.block.data)

    def run(self) -> None:
        # Both forms are worth having. Of rows of 2 KB of English, bz2 leaves 27 % and zlib 39 %, so
        # the same memory holds 1.4 times as many rows. But bz2 takes 140 us a row and zlib 37 us,
        # which keeps up with four times as many captures when the worker has to compress at once.
        if self.quickly:
            self.data = zlib.compress(self._plain(), ZLIB_LEVEL)
        else:
            self.data = bz2.compress(self._plain(), BZ2_LEVEL)

    def finish(self) -> None:
        self.buffer.take_compacted(self)


class MemoryBuffer:
    """Rows in blocks, leased ones in a dict. See the protocols of `buffers` for each method.

    A closed block is in `_loose` while it consists of objects, in `_packed` while it is one piece,
    and in `_quick` after quick compression; the newest block comes last in each. It is in `_begun`
    while another thread compresses it, and in none of them when it cannot become smaller.

    Rows that were released or passed over wait as objects, by model, in `_apart`; those that were
    put off wait in `_put_off`.

    Compaction begins with the blocks that will be needed last, so that a longer outage fits into
    the same memory.

    Args:
        max_rows: The most rows that it holds.
        max_bytes: The most bytes that it holds, overhead included.
        block_bytes: The most bytes of rows that are compressed together, overhead included.
    """

    is_durable = False
    is_looking = False

    def __init__(self, *, max_rows: int, max_bytes: int, block_bytes: int = BLOCK_BYTES) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._block_bytes = min(block_bytes, max_bytes // BLOCKS)
        self._head: deque[Row] = deque()
        self._blocks: deque[_Block] = deque()
        self._filling = _Block()
        self._loose: dict[_Block, None] = {}
        self._packed: dict[_Block, None] = {}
        self._quick: dict[_Block, None] = {}
        self._begun: dict[_Block, None] = {}
        self._leased: dict[Row, None] = {}
        self._apart: dict[str, _Apart] = {}
        self._put_off: dict[str, _Apart] = {}
        self._waiting = 0
        self._size = 0

    @classmethod
    def of(cls, settings: RelaySettings) -> "MemoryBuffer":
        """Return a buffer of the size that the settings ask for."""
        return cls(max_rows=settings.queue_size, max_bytes=settings.buffer_bytes)

    def as_buffer(self) -> Buffer:
        """Return its interfaces."""
        return Buffer(leases=self, deferred=self, intake=self, compaction=self)

    @property
    def rows(self) -> int:
        """The number of rows held, leased ones included."""
        return self._waiting + len(self._leased)

    @property
    def size(self) -> int:
        """The bytes held, leased rows included."""
        return self._size

    @property
    def waiting(self) -> int:
        """The number of rows that can be leased."""
        return self._waiting

    def has_room(self, *, rows: int, size: int) -> bool:
        """Return whether that many more rows have room; an empty buffer has room for any one."""
        held = self._waiting + len(self._leased)
        if held == 0 and rows <= 1:
            return True
        taken = self._size + size + rows * ROW_OVERHEAD_BYTES
        return held + rows <= self._max_rows and taken <= self._max_bytes

    def put(self, rows: Sequence[Row]) -> None:
        """Hold rows."""
        size = body_bytes(rows) + ROW_OVERHEAD_BYTES * len(rows)
        if self._filling.size + size < self._block_bytes:
            self._filling.add(rows, size)
        else:  # a block becomes full somewhere among them
            for row in rows:
                self._filling.add([row], memory_size(row))
                if self._filling.size >= self._block_bytes:
                    self._close_block()
        self._size += size
        self._waiting += len(rows)

    def store(self, rows: Sequence[Row]) -> bool:
        """Hold rows. Returns True: they are as safe as memory is."""
        self.put(rows)
        return True

    def pack(self) -> None:
        """Serialise the newest loose block, which will be needed last, into one piece."""
        if self._loose:
            block, _ = self._loose.popitem()
            self._reform(block, block.pack(), _as_it_is)

    def compact(self, *, quickly: bool = False) -> bool:
        """Compress the newest block that is not compressed, else improve a quick compression."""
        block = self._next_to_compact(quickly=quickly)
        if block is None and self._filling.size >= self._block_bytes // SMALLEST_PART:
            self._close_block()
            block = self._next_to_compact(quickly=quickly)
        if block is None and self._begun and not quickly:
            block = next(reversed(self._begun))  # done twice, rather than that a row is lost
        if block is None:
            return False
        compaction = _BlockCompaction(self, block, quickly)
        compaction.run()
        compaction.finish()
        return True

    def begin_compaction(self) -> Compaction | None:
        """Return the work that compresses the newest block that can become smaller, or None."""
        block = self._next_to_compact(quickly=False)
        if block is None:
            return None
        self._begun[block] = None
        return _BlockCompaction(self, block, quickly=False)

    def take_compacted(self, done: _BlockCompaction) -> None:
        """Put the result of a compression in place, unless the block was opened meanwhile."""
        block = done.block
        self._begun.pop(block, None)
        if not block.waits or block.decompress is bz2.decompress:
            return
        if done.data:
            self._reform(block, done.data, zlib.decompress if done.quickly else bz2.decompress)
        else:
            self._list(block)

    def lease(
        self,
        limit: int,
        but: AbstractSet[str] = frozenset(),
        *,
        most_bytes: int = ANY_BYTES,
    ) -> list[Row]:
        """Lease up to `limit` of the oldest waiting rows."""
        leased: list[Row] = []
        left = most_bytes
        for model_id in [model for model in self._apart if model not in but]:
            some = _take_from(self._apart, model_id, limit - len(leased), left)
            left -= body_bytes(some)
            leased += some
            if left <= 0 or len(leased) >= limit:
                break
        head = self._head
        while left > 0 and len(leased) < limit and (head or self._open_block(but)):
            some = _take(head, limit - len(leased), left)
            if but:
                some = self._pass_over(some, but)
            left -= body_bytes(some)
            leased += some
        self._lend(leased)
        return leased

    def lease_of(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` waiting rows of one model."""
        leased = _take_from(self._apart, model_id, limit, most_bytes)
        while len(leased) < limit and (left := most_bytes - body_bytes(leased)) > 0:
            of_model = deque(row for row in self._head if row.model_id == model_id)
            if found := _take(of_model, limit - len(leased), left):
                taken = set(found)
                self._head = deque(row for row in self._head if row not in taken)
                leased += found
            elif not self._open_block_of(model_id):
                break
        self._lend(leased)
        return leased

    def release(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait again, after those of their model that were sent as often."""
        for row in rows:
            del self._leased[row]
            self._set_apart(row)
            self._waiting += 1

    def put_off(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait until `lease_put_off` asks for them."""
        for row in rows:
            del self._leased[row]
            self._put_off.setdefault(row.model_id, _Apart()).add(row)
            self._waiting += 1

    def has_put_off(self, model_id: str) -> bool:
        """Return whether rows of a model are put off."""
        return model_id in self._put_off

    def lease_put_off(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` rows of one model that were put off."""
        leased = _take_from(self._put_off, model_id, limit, most_bytes)
        self._lend(leased)
        return leased

    def on_their_way(
        self, inferences: AbstractSet[tuple[str, str]]
    ) -> AbstractSet[tuple[str, str]]:
        """Return which of some inferences are leased themselves."""
        return inferences_among(self._leased, inferences)

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows."""
        leased, size = self._leased, 0
        for row in rows:
            if leased.pop(row, row) is None:  # it was there
                size += len(row.body) + ROW_OVERHEAD_BYTES  # `memory_size`, without a call
        self._size -= size

    def has_leased(self, row: Row) -> bool:
        """Return whether a row is leased from this buffer."""
        return row in self._leased

    def replace(self, old: Row, new: Row) -> None:
        """Put a smaller form of a leased row in its place."""
        self.settle([old])
        self._leased[new] = None
        self._size += memory_size(new)

    def evict(self) -> Row | None:
        """Forget the oldest waiting row and return it; rows that were passed over are older."""
        if found := self._put_off or self._apart:
            (row,) = _take_from(found, next(iter(found)), 1)
        elif self._head or self._open_block():
            row = self._head.popleft()
        else:
            return None
        self._waiting -= 1
        self._size -= memory_size(row)
        return row

    def release_all(self) -> None:
        """Make every leased row wait again, before all others."""
        self._head.extendleft(reversed(self._leased))
        self._waiting += len(self._leased)
        self._leased.clear()
        for found in self._put_off.values():
            for queue in found.queues.values():
                for row in queue:
                    self._set_apart(row)
        self._put_off.clear()

    def _next_to_compact(self, *, quickly: bool) -> _Block | None:
        """Take the newest block that can become smaller from its list; it is one piece."""
        if not self._packed:
            self.pack()
        for blocks in (self._packed,) if quickly else (self._packed, self._quick):
            if blocks:
                return blocks.popitem()[0]
        return None

    def _reform(self, block: _Block, data: bytes, decompress: Decompress) -> None:
        self._size -= block.size
        block.become(data, decompress)
        self._size += block.size
        self._list(block)

    def _list(self, block: _Block) -> None:
        """Add a block to the list for what can still be done with it."""
        if block.decompress is _as_it_is:
            self._packed[block] = None
        elif block.decompress is zlib.decompress:
            self._quick[block] = None

    def _close_block(self) -> None:
        self._blocks.append(self._filling)
        self._loose[self._filling] = None
        self._filling = _Block()

    def _lend(self, rows: Sequence[Row]) -> None:
        self._waiting -= len(rows)
        self._leased.update(dict.fromkeys(rows))

    def _pass_over(self, rows: Iterable[Row], but: AbstractSet[str]) -> list[Row]:
        """Remember the places of some models' rows, and return the other rows."""
        others = []
        for row in rows:
            if row.model_id in but:
                self._set_apart(row)
            else:
                others.append(row)
        return others

    def _set_apart(self, row: Row) -> None:
        self._apart.setdefault(row.model_id, _Apart()).add(row)

    def _open_block(self, but: AbstractSet[str] = frozenset()) -> bool:
        """Move the rows of the oldest block to the empty head. Returns False when there is none.

        Args:
            but: Blocks that have only rows of these models stay as they are.
        """
        if self._open_first(lambda block: not block.models <= but):
            return True
        if not self._filling.count or self._filling.models <= but:
            return False
        self._close_block()
        return self._open_first(lambda block: not block.models <= but)

    def _open_block_of(self, model_id: str) -> bool:
        """Move the rows of the oldest block that has rows of a model to the head."""
        if model_id in self._filling.models:
            self._close_block()
        return self._open_first(lambda block: model_id in block.models)

    def _open_first(self, is_wanted: Callable[[_Block], bool]) -> bool:
        block = next((block for block in self._blocks if is_wanted(block)), None)
        if block is None:
            return False
        self._blocks.remove(block)
        block.waits = False
        for blocks in (self._loose, self._packed, self._quick, self._begun):
            blocks.pop(block, None)
        rows = block.open()
        if block.data:
            self._size += sum(map(memory_size, rows)) - block.size
        self._head.extend(rows)
        return True


def _take_from(
    models: dict[str, _Apart], model_id: str, limit: int, most_bytes: int = ANY_BYTES
) -> list[Row]:
    """Take rows of a model that were set apart or put off."""
    found = models.get(model_id)
    if found is None:
        return []
    taken = found.take(limit, most_bytes)
    if not len(found):
        del models[model_id]
    return taken
