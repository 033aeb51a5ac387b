"""The buffer of `overflow = spill`: memory first, then the disk, in order; nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.memory import MemoryBuffer
from arthur_relay.buffers.overflow import MOVED_ROWS, OverflowBuffer
from arthur_relay.row import Row
from tests.buffers.spools import MIB, crash, ids, new_spool, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.buffers.spool.buffer import Spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def new_spill(path: Path, *, rows: int = 10) -> tuple[OverflowBuffer, Spool]:
    spool = new_spool(path)
    spill = OverflowBuffer(MemoryBuffer(max_rows=rows, max_bytes=64 * MIB), spool)
    spill.open()
    return spill, spool


def put(spill: OverflowBuffer, rows: list[Row]) -> None:
    for row in rows:
        assert spill.has_room(rows=1, size=len(row.body))
        spill.put([row])
    spill.commit()


def test_the_disk_is_used_when_memory_is_full_and_the_order_stays(path: Path) -> None:
    spill, spool = new_spill(path)
    put(spill, rows_of(10))
    assert (spill.rows, spool.rows, spill.kept) == (10, 0, 0)
    put(spill, rows_of(15, 10))
    assert (spill.rows, spill.waiting, spool.rows, spill.kept) == (25, 25, 15, 15)
    first = spill.lease(4)
    spill.settle(first)
    put(spill, rows_of(1, 25))  # there is room in memory, but older ones are on disk
    assert spool.rows == 16
    rest = [row for _ in range(10) for row in spill.lease(5)]
    assert ids(first + rest) == [f"r{number}" for number in range(26)]
    spill.settle(rest)
    spill.commit()
    assert (spill.rows, spill.size, spool.rows) == (0, 0, 0)
    put(spill, rows_of(3))
    assert (spill.rows, spool.rows) == (3, 0)  # in memory again
    assert spill.close() == 3


def test_what_is_in_memory_at_the_end_goes_to_the_disk(path: Path) -> None:
    spill, _ = new_spill(path, rows=2_000)
    put(spill, rows_of(1_500))
    leased = spill.lease(100)
    assert len(leased) == 100
    assert spill.close() == 1_500
    again = new_spool(path)
    assert again.open() == 1_500
    assert ids(again.lease(2_000)) == [f"r{number}" for number in range(1_500)]
    again.close()


@pytest.mark.parametrize("compact", [False, True])
def test_no_more_is_kept_than_there_is_time_for(compact: bool, path: Path) -> None:
    spill, _ = new_spill(path, rows=3_000)
    put(spill, rows_of(3_000))
    while compact and spill.as_buffer().compaction.compact():
        pass
    assert spill.closing_seconds > 0
    asked = iter([False, False, True])
    kept = spill.close(lambda: next(asked))
    assert kept == 2 * MOVED_ROWS
    again = new_spool(path)
    assert again.open() == kept
    assert ids(again.lease(3_000)) == [f"r{number}" for number in range(kept)]
    again.close()


def test_what_an_earlier_process_left_takes_half_of_each_lease(path: Path) -> None:
    earlier = new_spool(path)
    earlier.open()
    earlier.put(rows_of(20, 1000))
    earlier.commit()
    crash(earlier)
    spill, _ = new_spill(path, rows=100)
    put(spill, rows_of(20))
    leased = ids(spill.lease(10))
    assert leased == [f"r{number}" for number in [*range(1000, 1005), *range(5)]]
    spill.release_all()
    assert spill.waiting == 40
    assert spill.close() == 40


def test_leased_rows_are_found_wherever_they_are(path: Path) -> None:
    spill, _ = new_spill(path, rows=1)
    put(spill, rows_of(2))
    rows = spill.lease(2)
    assert spill.on_their_way({("m", "r0"), ("m", "r1"), ("m", "r2")}) == {("m", "r0"), ("m", "r1")}
    smaller = [Row(row.id, row.model_id, b"cut") for row in rows]
    for old, new in zip(rows, smaller, strict=True):
        spill.replace(old, new)
    spill.settle(smaller)
    spill.commit()
    assert spill.rows == 0
    assert spill.close() == 0


def test_when_both_are_full_the_oldest_on_disk_gives_way(path: Path) -> None:
    spool = new_spool(path, max_bytes=2 * MIB)
    spill = OverflowBuffer(MemoryBuffer(max_rows=10, max_bytes=64 * MIB), spool)
    spill.open()
    count = 0
    while spill.has_room(rows=1, size=20_000):
        put(spill, rows_of(1, count, size=20_000))
        count += 1
    evicted = spill.evict()
    assert evicted is not None
    assert evicted.id == "r10"
    spill.commit()
    assert spill.has_room(rows=1, size=10_000)
    spill.close()
