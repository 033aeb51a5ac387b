"""The buffer in memory as a state machine against a plain list, and what compression gains."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from arthur_relay.buffers import Compaction
from arthur_relay.buffers.memory import MemoryBuffer, memory_size
from arthur_relay.row import Row

pytestmark = pytest.mark.one_python

BLOCK_BYTES = 512 * 1024

Fields = tuple[str, str, bytes, int, int]


def fields(row: Row) -> Fields:
    """A row that was compressed comes back as another object with the same fields."""
    return row.id, row.model_id, row.body, row.epoch, row.shrunk


class Name(str):
    """An application's id that is not of the type `str` itself."""

    __slots__ = ()


class BufferMachine(RuleBasedStateMachine):
    """Whatever is done to the buffer, in whatever order, a list of rows would do the same."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = MemoryBuffer(max_rows=10**6, max_bytes=10**9, block_bytes=BLOCK_BYTES)
        self.waiting: list[Row] = []
        self.leased: list[Row] = []
        self.compactions: list[Compaction] = []
        self.number = 0

    def new_row(self, size: int) -> Row:
        self.number += 1
        body = random.Random(self.number).randbytes(4) * (size // 4 + 1)
        name = Name(f"r\n{self.number}")
        return Row(name, "ab"[self.number % 2], body, self.number, self.number % 3)

    @rule(sizes=st.lists(st.sampled_from([1, 3_000, 200_000, BLOCK_BYTES]), max_size=6))
    def put(self, sizes: list[int]) -> None:
        rows = [self.new_row(size) for size in sizes]
        self.buffer.put(rows)
        self.waiting += rows

    @rule(limit=st.integers(1, 8))
    def lease(self, limit: int) -> None:
        rows = self.buffer.lease(limit)
        expected, self.waiting = self.waiting[:limit], self.waiting[limit:]
        assert [fields(row) for row in rows] == [fields(row) for row in expected]
        self.leased += rows

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.sampled_from(self.leased), unique=True)) if self.leased else []
        self.buffer.settle([*rows, *rows])  # settling again changes nothing
        self.leased = [row for row in self.leased if row not in rows]

    @precondition(lambda self: self.leased)
    @rule()
    def replace(self) -> None:
        old = self.leased.pop()
        new = Row(old.id, old.model_id, b"cut", old.epoch, old.shrunk + 1)
        self.buffer.replace(old, new)
        self.leased.append(new)

    @rule()
    def evict(self) -> None:
        row = self.buffer.evict()
        assert (row is None) == (not self.waiting)
        if row is not None:
            assert fields(row) == fields(self.waiting.pop(0))

    @rule()
    def release_all(self) -> None:
        self.buffer.release_all()
        self.waiting = self.leased + self.waiting
        self.leased = []

    @rule(quickly=st.booleans())
    def compact(self, quickly: bool) -> None:
        before = self.buffer.size
        if not self.buffer.compact(quickly=quickly):
            assert self.buffer.size == before

    @rule()
    def begin_compaction(self) -> None:
        if (compaction := self.buffer.begin_compaction()) is not None:
            self.compactions.append(compaction)

    @precondition(lambda self: self.compactions)
    @rule(works=st.booleans(), data=st.data())
    def finish_compaction(self, works: bool, data: st.DataObject) -> None:
        compaction = data.draw(st.sampled_from(self.compactions))
        self.compactions.remove(compaction)
        before = self.buffer.size
        if works:
            compaction.run()
        compaction.finish()
        assert self.buffer.size <= before

    @invariant()
    def counts(self) -> None:
        assert self.buffer.waiting == len(self.waiting)
        assert self.buffer.rows == len(self.waiting) + len(self.leased)
        held = sum(map(memory_size, [*self.waiting, *self.leased]))
        assert self.buffer.size <= held
        if not self.waiting:
            assert self.buffer.size == held


TestBuffer = BufferMachine.TestCase
TestBuffer.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def filled(buffer: MemoryBuffer, compact: Callable[[], bool]) -> int:
    """Fill a buffer with rows of words until neither room nor anything to compact is left."""
    words = [f"{number:x}" for number in range(0, 70_000, 7)]
    draw = random.Random(1)
    rows = 0
    while True:
        row = Row(str(rows), "m", " ".join(draw.choices(words, k=400)).encode())
        if buffer.has_room(rows=1, size=len(row.body)):
            buffer.put([row])
            rows += 1
        elif not compact():
            return rows


@pytest.mark.parametrize(("quickly", "gain"), [(True, 1.5), (False, 2.0)])
def test_a_compact_buffer_holds_more_in_the_same_bytes(quickly: bool, gain: float) -> None:
    def new() -> MemoryBuffer:
        return MemoryBuffer(max_rows=10**6, max_bytes=4_000_000)

    plain = filled(new(), lambda: False)
    buffer = new()
    rows = filled(buffer, lambda: buffer.compact(quickly=quickly))
    assert rows > gain * plain
    assert buffer.size <= 4_000_000
    before = buffer.size
    assert buffer.compact() is quickly  # what was compressed in a hurry can become smaller
    assert (buffer.size < before) is quickly
    assert [row.id for row in buffer.lease(10**6)] == [str(number) for number in range(rows)]


def test_a_full_buffer_compresses_what_is_being_compressed_before_it_drops_anything() -> None:
    buffer = MemoryBuffer(max_rows=1000, max_bytes=10**6)
    while (compaction := buffer.begin_compaction()) is None:
        buffer.put([Row("id", "m", b"text " * 1_000)])
    before = buffer.size
    assert buffer.compact()
    smaller = buffer.size
    assert smaller < before
    compaction.run()
    compaction.finish()
    assert buffer.size == smaller
    assert not buffer.compact()


def _rows(count: int) -> list[Row]:
    return [Row(f"r{number}", "m", b"x" * 100) for number in range(count)]


def test_the_memory_buffer() -> None:
    buffer = MemoryBuffer(max_rows=3, max_bytes=1_200)
    assert buffer.has_room(rows=1, size=10**9)  # one of any size, when it is empty
    rows = _rows(3)
    for row in rows:
        buffer.put([row])
    assert (buffer.rows, buffer.waiting, buffer.size) == (3, 3, 1_500)
    assert not buffer.has_room(rows=1, size=1)
    (first,) = buffer.lease(1)
    assert first is rows[0]
    assert (buffer.rows, buffer.waiting, buffer.size) == (3, 2, 1_500)
    smaller = Row("r0", "m", b"x")
    buffer.replace(rows[0], smaller)
    assert buffer.size == 1_401
    buffer.release_all()
    assert buffer.lease(1) == [smaller]  # before the others, again
    buffer.settle([smaller, smaller])  # settling again changes nothing
    assert buffer.evict() is rows[1]
    assert buffer.evict() is rows[2]
    assert buffer.evict() is None
    assert buffer.lease(1) == []
    assert (buffer.rows, buffer.size) == (0, 0)
