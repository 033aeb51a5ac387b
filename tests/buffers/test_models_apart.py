"""Rows of models that have to wait stay in the buffer, and keep no others from being leased."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arthur_relay.buffers.memory import MemoryBuffer
from arthur_relay.buffers.overflow import OverflowBuffer
from arthur_relay.buffers.spool.buffer import Spool
from arthur_relay.row import RECOVERED, History, Row

from .spools import new_spool

Buffer = MemoryBuffer | OverflowBuffer | Spool
Make = Callable[[Path], Buffer]


def _spill(path: Path) -> Buffer:
    return OverflowBuffer(MemoryBuffer(max_rows=40, max_bytes=1 << 20), new_spool(path))


KINDS: dict[str, Make] = {
    "memory": lambda _path: MemoryBuffer(max_rows=10_000, max_bytes=1 << 20, block_bytes=2000),
    "spool": new_spool,
    "spill": _spill,
}


@pytest.fixture(params=list(KINDS))
def buffer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Buffer]:
    found = KINDS[request.param](tmp_path)
    found.as_buffer().durable.open()
    yield found
    found.as_buffer().durable.close()


def rows(model: str, count: int) -> list[Row]:
    return [Row(f"{model}{number}", model, b"x" * 100) for number in range(count)]


def ids(found: list[Row]) -> list[str]:
    return [row.id for row in found]


def lease_all(buffer: Buffer, but: frozenset[str] = frozenset()) -> list[str]:
    found: list[str] = []
    while some := buffer.lease(30, but):
        found += ids(some)
    return found


def test_they_are_passed_over_and_come_later(buffer: Buffer) -> None:
    buffer.put(
        [row for pair in zip(rows("bad", 100), rows("good", 100), strict=True) for row in pair]
    )
    buffer.as_buffer().durable.commit()
    assert sorted(lease_all(buffer, frozenset({"bad"}))) == sorted(ids(rows("good", 100)))
    assert (buffer.rows, buffer.waiting) == (200, 100)
    assert buffer.lease(10, frozenset({"bad"})) == []
    assert sorted(lease_all(buffer)) == sorted(ids(rows("bad", 100)))
    assert buffer.waiting == 0
    assert buffer.lease(10) == []
    assert buffer.rows == 200


def test_what_is_given_back_waits_behind_what_was_never_sent(buffer: Buffer) -> None:
    buffer.put(rows("bad", 4))
    buffer.as_buffer().durable.commit()
    first, second = buffer.lease(2)
    for row in (first, second):
        row.history = History(attempts=1, since=5.0)
    buffer.as_buffer().journal.note([first, second])
    buffer.release([second, first])
    assert buffer.waiting == 4
    buffer.as_buffer().durable.commit()
    assert buffer.lease(10, frozenset({"bad"})) == []
    found = [buffer.lease_of("bad", 1)[0] for _ in range(4)]
    assert ids(found) == ["bad2", "bad3", "bad1", "bad0"]
    assert [row.history.attempts for row in found] == [0, 0, 1, 1]
    buffer.settle(found)
    assert (buffer.rows, buffer.lease_of("bad", 1)) == (0, [])


def test_what_was_sent_least_often_comes_first(buffer: Buffer) -> None:
    """Rows that failed alone, and so once more, keep none from its turn that failed with them."""
    buffer.put(rows("bad", 4))
    buffer.as_buffer().durable.commit()
    leased = buffer.lease(4)
    for row, attempts in zip(leased, (9, 3, 9, 2), strict=True):
        row.history = History(attempts=attempts, since=5.0)
    buffer.as_buffer().journal.note(leased)
    buffer.release(leased)
    buffer.as_buffer().durable.commit()
    assert ids(buffer.lease_of("bad", 1)) == ["bad3"]
    assert ids(buffer.lease(10)) == ["bad1", "bad0", "bad2"]


def test_a_probe_finds_a_row_of_its_model_behind_others(buffer: Buffer) -> None:
    buffer.put([*rows("good", 20), *rows("bad", 3)])
    buffer.as_buffer().durable.commit()
    assert ids(buffer.lease_of("bad", 1)) == ["bad0"]
    assert sorted(lease_all(buffer)) == sorted([*ids(rows("good", 20)), "bad1", "bad2"])


def test_what_is_apart_gives_way_first_and_is_there_after_a_death(buffer: Buffer) -> None:
    buffer.put([*rows("bad", 3), *rows("good", 3)])
    buffer.as_buffer().durable.commit()
    assert len(buffer.lease(10, frozenset({"bad"}))) == 3
    evicted = buffer.evict()
    assert evicted is not None
    assert evicted.model_id == "bad"
    buffer.release_all()
    assert buffer.waiting == 5
    assert len(lease_all(buffer)) == 5
    assert buffer.evict() is None


def test_a_cut_row_is_as_it_was_cut_when_it_comes_again(buffer: Buffer) -> None:
    buffer.put(rows("bad", 1))
    buffer.as_buffer().durable.commit()
    (row,) = buffer.lease(1)
    smaller = Row(row.id, row.model_id, b"y", shrunk=1)
    buffer.replace(row, smaller)
    buffer.release([smaller])
    assert buffer.lease_of("bad", 1)[0].body == b"y"


def test_many_rows_are_passed_over_in_parts(tmp_path: Path) -> None:
    spool = new_spool(tmp_path)
    spool.open()
    spool.put([*rows("bad", 12_000), *rows("good", 1)])
    spool.commit()
    found = []
    looks = 0
    while True:
        found += spool.lease(500, frozenset({"bad"}))
        looks += 1
        if not spool.is_looking:
            break
    assert ids(found) == ["good0"]
    assert looks > 2
    assert len(lease_all(spool)) == 12_000
    assert spool.close() == 12_001


def test_what_is_passed_over_takes_no_more_memory_than_its_place(tmp_path: Path) -> None:
    spool = new_spool(tmp_path)
    spool.open()
    for _ in range(20):
        spool.put(rows("bad", 1000))
        spool.commit()
    (sent,) = spool.lease(1)
    spool.release([sent])
    tracemalloc.start()
    try:
        lease_all(spool, frozenset({"bad"}))
        while spool.is_looking:
            lease_all(spool, frozenset({"bad"}))
        failed = spool.lease_of("bad", 5000)
        for row in failed:
            row.history = History(attempts=1, since=5.0)
        spool.note(failed)
        spool.release(failed)
        spool.commit()
        del failed, row
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert spool.waiting == 20_000
    spool.close()
    assert taken < 20_000 * 50, f"{taken / 20_000:.0f} bytes a row"


def test_a_row_comes_again_as_it_has_become_whether_or_not_that_is_written(tmp_path: Path) -> None:
    spool = new_spool(tmp_path)
    spool.open()
    spool.put([Row("old", "bad", b"x", epoch=3)])
    spool.commit()
    (old,) = spool.lease(1)
    spool.put([Row("new", "bad", b"x", epoch=4)])
    new = spool.lease(1)[0]  # it is in memory only
    for row in (old, new):
        row.history = History(attempts=2, since=5.0)
    spool.note([old, new])
    spool.release([old, new])
    for _ in range(2):
        found = spool.lease_of("bad", 2)
        assert [(row.id, row.epoch, row.history) for row in found] == [
            ("old", 3, History(attempts=2, since=5.0)),
            ("new", 4, History(attempts=2, since=5.0)),
        ]
        spool.release(found)
        spool.commit()
    spool.close()
    later = new_spool(tmp_path)
    later.open()
    assert later.lease(5, frozenset({"bad"})) == []
    assert [row.epoch for row in later.lease_of("bad", 2)] == [RECOVERED, RECOVERED]
    later.close()


def of_model(model: str, count: int) -> list[Row]:
    return [Row(f"{model}{n}", model, b"x" * 1000, epoch=RECOVERED) for n in range(count)]


def test_a_lease_ends_with_its_bytes(buffer: Buffer) -> None:
    buffer.put([*of_model("a", 10), *of_model("b", 10)])
    buffer.as_buffer().durable.commit()
    assert len(buffer.lease(20, most_bytes=4500)) == 5
    assert len(buffer.lease(20, most_bytes=1)) == 1, "one of any size"
    found = buffer.lease(20, frozenset({"a"}), most_bytes=3000)
    assert {row.model_id for row in found} == {"b"}
    assert len(found) == 3
    buffer.release(found)
    assert len(buffer.lease_of("b", 20, most_bytes=2000)) == 2
    while buffer.lease(20, most_bytes=2000):
        pass
    assert (buffer.rows, buffer.waiting) == (20, 0)


def test_what_is_put_off_is_leased_when_it_is_asked_for(buffer: Buffer) -> None:
    buffer.put([*of_model("a", 3), *of_model("b", 3)])
    buffer.as_buffer().durable.commit()
    rows = buffer.lease(10)
    buffer.put_off([row for row in rows if row.model_id == "a"])
    assert (buffer.rows, buffer.waiting) == (6, 3)
    assert buffer.lease(10) == []
    assert buffer.lease_of("a", 10) == []
    assert (buffer.has_put_off("a"), buffer.has_put_off("b")) == (True, False)
    assert buffer.lease_put_off("b", 10) == []
    assert len(buffer.lease_put_off("a", 10, most_bytes=1500)) == 2
    assert buffer.evict() is not None
    assert (buffer.has_put_off("a"), buffer.rows, buffer.waiting) == (False, 5, 0)
    assert buffer.as_buffer().durable.lost().rows == 0


def test_after_a_death_what_was_put_off_waits_as_the_others_do(buffer: Buffer) -> None:
    buffer.put(of_model("a", 3))
    buffer.as_buffer().durable.commit()
    buffer.put_off(buffer.lease(10))
    buffer.release_all()
    assert len(buffer.lease(10)) == 3
