"""The spool's rows: their order, their limits, a disk that is full, space that is given back."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from arthur_relay.buffers.spool.buffer import UNWRITTEN_BYTES
from arthur_relay.buffers.spool.disk_state import RETRY_SECONDS
from arthur_relay.row import RECOVERED
from tests.buffers.spools import MIB, connection_of, crash, ids, new_spool, rows_of
from tests.clock import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_rows_come_back_oldest_first_and_new_ones_need_not_wait_for_them(path: Path) -> None:
    first = new_spool(path)
    assert first.open() == 0
    first.put(rows_of(100))
    first.commit()
    crash(first)
    second = new_spool(path)
    assert second.open() == 100
    second.put(rows_of(100, 1000))
    second.commit()
    leased = second.lease(20)
    assert ids(leased) == [f"r{number}" for number in [*range(10), *range(1000, 1010)]]
    assert [row.epoch for row in leased] == [RECOVERED] * 10 + [3] * 10
    alternating = [second.lease(1)[0].id for _ in range(4)]
    assert sorted(alternating) == ["r10", "r1010", "r1011", "r11"]
    assert len(second.lease(1000)) == 200 - 24
    second.close()


def test_the_limit_is_in_bytes_and_what_is_evicted_makes_room(path: Path) -> None:
    spool = new_spool(path, max_bytes=4 * MIB)
    spool.open()
    count = 0
    while spool.has_room(rows=1, size=2_000):
        spool.put(rows_of(1, count, size=2_000))
        spool.commit()
        count += 1
    assert 1_500 < count < 2_100
    evicted = spool.evict()
    assert evicted is not None
    assert evicted.id == "r0"
    assert spool.has_room(rows=1, size=1_900)
    spool.commit()
    assert (path / "0.spool").stat().st_size <= 4 * MIB
    spool.close()


def test_a_full_disk_is_waited_for_in_memory(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    spool = new_spool(path, clock)
    spool.open()
    spool.put(rows_of(10))
    spool.commit()
    connection = connection_of(spool)
    ((pages,),) = connection.execute("PRAGMA page_count")
    connection.execute(f"PRAGMA max_page_count = {pages}")
    spool.put(rows_of(200, 10, size=20_000))
    with caplog.at_level(logging.WARNING):
        spool.commit()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "full" in caplog.records[0].getMessage()
    assert spool.kept == 10
    assert spool.has_room(rows=1, size=1_000)
    assert not spool.has_room(rows=1, size=UNWRITTEN_BYTES)
    oldest_in_memory = spool.evict()
    assert oldest_in_memory is not None
    assert oldest_in_memory.id == "r10"
    assert len(spool.lease(1_000)) == 209  # delivery goes on
    connection.execute("PRAGMA max_page_count = 1000000")
    clock.now += RETRY_SECONDS
    with caplog.at_level(logging.INFO, logger="arthur_relay"):
        spool.commit()
    assert spool.kept == 209
    assert "written again" in caplog.records[-1].getMessage()
    assert caplog.records[-1].levelname == "INFO"
    spool.close()


def test_space_is_given_back(path: Path) -> None:
    spool = new_spool(path)
    spool.open()
    for first in range(0, 20_000, 1_000):
        spool.put(rows_of(1_000, first, size=2_000))
        spool.commit()
    file = path / "0.spool"
    assert file.stat().st_size > 30 * MIB
    while rows := spool.lease(1_000):
        spool.settle(rows)
        spool.commit()
    for _ in range(10):  # a turn each, as a worker would
        spool.put(rows_of(1))
        spool.settle(spool.lease(1))
        spool.put(rows_of(1))
        spool.commit()
    assert file.stat().st_size < 4 * MIB
    assert (path / "0.spool-wal").stat().st_size <= 6 * MIB
    spool.close()


def test_what_is_kept_is_never_told_too_high(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = new_spool(path)
    spool.open()
    spool.put(rows_of(10))
    spool.commit()
    spool.settle(spool.lease(4))
    file, committed = spool._segments[0].file, []

    class Interrupted:
        """Has the worker commit while another thread, which asks what is kept, has half of it."""

        @property
        def rows(self) -> int:
            rows = file.rows
            spool._segments[0].file = file
            spool.commit()
            committed.append(file.rows)
            return rows

    monkeypatch.setattr(spool._segments[0], "file", Interrupted())
    assert spool.kept <= 6
    assert committed == [6]
    assert spool.kept == 6
    spool.close()
