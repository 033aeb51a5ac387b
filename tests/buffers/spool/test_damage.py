"""A damaged spool: what can be read is delivered row by row, what can't is counted as lost."""

from __future__ import annotations

import errno
import logging
import os
import random
import sqlite3
from collections import Counter
from io import FileIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool.file_format import PAGE_BYTES
from arthur_relay.buffers.spool.sqlite_file import SpoolFile
from arthur_relay.row import RECOVERED, History, Row, RowKind
from arthur_relay.system.sqlite_pages import Pages
from tests.buffers.spools import connection_of, crash, ids, new_spool
from tests.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arthur_relay.buffers.spool.buffer import Spool

ROWS = 600


def rows_of(count: int, first: int = 0) -> list[Row]:
    """Return rows of JSON, of which some are on pages of their own."""
    return [
        Row(f"r{n}", f"m{n % 3}", b'{"text": "' + b"x" * (40_000 if n % 60 == 7 else 2_000) + b'"}')
        for n in range(first, first + count)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def fill(path: Path) -> None:
    """Leave a spool of which some rows are delivered, so that free pages have old rows in them."""
    spool = new_spool(path)
    spool.open()
    spool.put(rows_of(ROWS + 50))
    spool.commit()
    done = spool.lease(50)
    spool.settle(done)
    kept = spool.lease(1)
    kept[0].history = History(2, 5.0, 1)
    spool.note(kept)
    spool.commit()
    spool.release_all()
    assert spool.close() == ROWS


def pages_of(path: Path) -> int:
    return (path / "0.spool").stat().st_size // PAGE_BYTES


def overwrite(path: Path, page: int) -> None:
    """Overwrite a page, counted from 1."""
    with (path / "0.spool").open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(random.Random(page).randbytes(PAGE_BYTES))


class Counts:
    """Counts as the ledger does."""

    def __init__(self) -> None:
        self.captured = 0
        self.lost = 0

    def recover(self, rows: int, _by_model: Callable[[], Mapping[str, int]]) -> None:
        self.captured += rows


def deliver_all(spool: Spool, counts: Counts) -> list[Row]:
    """Deliver what there is, and see that no row is left that is not accounted for."""
    found: list[Row] = []
    while rows := spool.lease(100):
        found += rows
        spool.settle(rows)
        spool.commit()
    counts.lost += spool.lost().rows
    assert spool.rows == spool.waiting == 0
    assert len(found) + counts.lost == counts.captured
    assert max(Counter(ids(found)).values()) == 1
    return found


@pytest.mark.parametrize("pages", [(1, 2, 3), (4, 5, 6), (7, 8, 20), (50, 77, 91)])
def test_a_page_that_was_overwritten_costs_what_was_in_it(
    pages: tuple[int, ...], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    assert pages_of(path) > 91
    whole = (path / "0.spool").read_bytes()
    bodies = {row.id: row.body for row in rows_of(ROWS + 50)}
    for page in pages:
        (path / "0.spool").write_bytes(whole)
        overwrite(path, page)
        counts = Counts()
        spool = new_spool(path)
        caplog.clear()
        spool.open(counts.recover)
        found = deliver_all(spool, counts)
        assert len(found) >= ROWS - 10
        # Without its count of rows a file can't say how many are missing.
        assert counts.captured in (ROWS, len(found))
        assert all(bodies[row.id] == row.body for row in found)
        assert {row.epoch for row in found} == {RECOVERED}
        assert not {"r0", "r49"} & set(ids(found)), "what was delivered is not sent again"
        if len(found) < ROWS:
            [record] = [each for each in caplog.records if each.levelname == "ERROR"]
            assert "is damaged" in record.getMessage()
        spool.close()
        for aside in path.glob("*damaged*"):
            aside.unlink()
        assert sorted(each.name for each in path.iterdir()) == ["0.lock"]


def test_the_histories_and_the_kinds_are_kept(path: Path) -> None:
    fill(path)
    spool = new_spool(path)
    spool.open()
    spool.put([Row("t", "m0", b'{"thumbs_up": true}', kind=RowKind.GROUND_TRUTH, shrunk=2)])
    spool.commit()
    spool.close()
    overwrite(path, 1)
    counts = Counts()
    spool = new_spool(path)
    assert spool.open(counts.recover) == ROWS + 1 == counts.captured
    found = {row.id: row for row in deliver_all(spool, counts)}
    assert found["r50"].history == History(2, 5.0, 1)
    assert (found["t"].kind, found["t"].shrunk) == (RowKind.GROUND_TRUTH, 2)
    spool.close()


def test_an_interior_page_hides_nothing(path: Path) -> None:
    spool = new_spool(path)
    spool.open()
    for first in range(0, 12_000, 1_000):
        rows = [
            Row(f"r{n}", "m", b'{"t": "' + b"x" * 4_000 + b'"}')
            for n in range(first, first + 1_000)
        ]
        spool.put(rows)
        spool.commit()
    spool.close()
    with (path / "0.spool").open("rb") as file:
        content = file.read()
    interior = [
        1 + at // PAGE_BYTES
        for at in range(PAGE_BYTES, len(content), PAGE_BYTES)
        if content[at] == 5
    ]
    assert len(interior) > 2, "the tree has three levels"
    overwrite(path, interior[-1])
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    assert len(deliver_all(spool, counts)) == counts.captured == 12_000
    spool.close()


@pytest.mark.parametrize("pages", [0, 1, 80])
def test_a_file_that_was_cut_off(pages: int, path: Path) -> None:
    fill(path)
    with (path / "0.spool").open("r+b") as file:
        file.truncate(max(1, pages * PAGE_BYTES + 100))
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    found = deliver_all(spool, counts) if spool.rows else []
    if pages == 80:
        assert 50 < len(found) < ROWS
        assert counts.captured == ROWS
    spool.put(rows_of(1))
    spool.commit()
    assert spool.close() == 1


def damage_live(path: Path, spool: Spool, page: int) -> None:
    """Overwrite a page of a file in use, which SQLite has forgotten that it read."""
    connection = connection_of(spool)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(path, page)
    connection.execute("PRAGMA shrink_memory")


@pytest.mark.parametrize("overflow", [False, True])
def test_damage_in_mid_run_costs_only_what_is_nowhere_else(
    overflow: bool, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While rows are being sent, others wait in the file, and one batch is not written yet."""
    fill(path)
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    new = rows_of(100, 1_000)
    for row in new:
        row.epoch = 3
    spool.put(new)
    spool.commit()
    leased = spool.lease(60)
    settled, kept = leased[:10], leased[10:]
    spool.settle(settled)
    kept[0].history = History(7, 1.0, 0)
    spool.note(kept[:1])
    unwritten = rows_of(5, 2_000)
    spool.put(unwritten)
    counts.captured += 105
    content = (path / "0.spool").read_bytes()
    leaves = [
        1 + at // PAGE_BYTES for at in range(0, len(content), PAGE_BYTES) if content[at] == 13
    ]
    with caplog.at_level(logging.WARNING):
        damage_live(path, spool, leaves[len(leaves) // 2] if not overflow else leaves[-1])
        found = list(settled)
        again = kept
        while rows := spool.lease(50):
            again = again + rows
        spool.commit()
    loss = spool.lost()
    found += again
    assert 0 < loss.rows <= 10
    assert spool.waiting == 0
    assert spool.rows == len(again)
    assert len(found) + loss.rows == counts.captured
    assert max(Counter(ids(found)).values()) == 1
    assert sum(loss.epochs.values()) == 100 - sum(row.epoch == 3 for row in found)
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert f"{loss.rows} are missing" in record.getMessage()
    assert [each.name for each in path.glob("*damaged*")]
    # What is still being sent is in the new file.
    spool.release_all()
    assert spool.close() == len(again)
    after = new_spool(path)
    assert after.open() == len(again)
    by_id = {row.id: row for row in after.lease(1_000)}
    assert set(by_id) == set(ids(again))
    assert by_id[kept[0].id].history == History(7, 1.0, 0)
    assert by_id["r2000"].body == unwritten[0].body
    after.close()


def test_damage_under_rows_that_were_set_apart_costs_only_what_was_there(path: Path) -> None:
    fill(path)
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    others: list[Row] = []
    while rows := spool.lease(50, frozenset({"m0"})):
        others += rows
    assert {row.model_id for row in others} == {"m1", "m2"}
    content = (path / "0.spool").read_bytes()
    leaves = [
        1 + at // PAGE_BYTES for at in range(0, len(content), PAGE_BYTES) if content[at] == 13
    ]
    damage_live(path, spool, leaves[len(leaves) // 2])
    spool.settle(others)
    found: list[Row] = []
    while rows := spool.lease(50):
        assert {row.model_id for row in rows} == {"m0"}
        found += rows
    spool.commit()
    loss = spool.lost()
    assert 0 < loss.rows <= 10
    assert len(found) + len(others) + loss.rows == counts.captured
    assert (spool.waiting, spool.rows) == (0, len(found))
    assert spool.store(rows_of(1, 5_000)), "it can be written again"
    spool.release_all()
    spool.close()


def test_rows_are_taken_while_the_file_is_found_damaged(path: Path) -> None:
    fill(path)
    spool = new_spool(path)
    spool.open()
    pages = pages_of(path)
    for page in range(2, pages + 1):
        damage_live(path, spool, page)
    counts = Counts()
    counts.captured = ROWS + 3
    assert spool.store(rows_of(3, 5_000))
    assert spool.store([Row("last", "m", b"{}")])
    counts.captured += 1
    found = deliver_all(spool, counts)
    assert {"r5000", "r5001", "r5002", "last"} <= set(ids(found))
    spool.close()


def test_a_disk_without_room_for_the_new_file_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    clock, counts = Clock(), Counts()
    spool = new_spool(path, clock)
    spool.open(counts.recover)
    first = spool.lease(10)
    damage_live(path, spool, pages_of(path) // 2)
    with monkeypatch.context() as patched:

        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        patched.setattr(SpoolFile, "restore", full)
        rows = []
        while more := spool.lease(100):
            rows += more
        assert "disk is full" in str(spool.trouble)
        assert not spool.store(rows_of(1, 9_000))
    assert len(rows) < ROWS - 50
    assert spool.rows == ROWS
    spool.settle(first + rows)
    clock.now += 10
    spool.commit()
    found = deliver_all_after(spool, counts, first + rows)
    assert len(found) >= ROWS - 10
    spool.close()


def deliver_all_after(spool: Spool, counts: Counts, before: list[Row]) -> list[Row]:
    counts.captured -= len(before)
    return before + deliver_all(spool, counts)


def test_a_crash_while_the_new_file_takes_its_place_loses_nothing(path: Path) -> None:
    fill(path)
    (path / "0.spool").rename(path / "0-damaged-1.sqlite")
    fill_other = new_spool(path)
    fill_other.open()
    fill_other.put(rows_of(5))
    fill_other.commit()
    fill_other.close()
    (path / "0.spool").rename(path / "0.salvaged")
    spool = new_spool(path)
    assert spool.open() == 5
    spool.close()
    # One that is perhaps not whole does not take the place of one that is there.
    (path / "0.salvaged").write_bytes(b"half")
    spool = new_spool(path)
    assert spool.open() == 5
    crash(spool)


def test_rows_that_were_removed_by_hand_are_lost_and_do_not_wait_for_ever(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    clock, counts = Clock(), Counts()
    spool = new_spool(path, clock)
    spool.open(counts.recover)
    new = rows_of(20, 1_000)
    for row in new:
        row.epoch = 4
    spool.put(new)
    spool.commit()
    counts.captured += 20
    leased = spool.lease(10)
    other = sqlite3.connect(path / "0.spool")
    with other:
        other.execute("DELETE FROM rows WHERE id IN ('r50', 'r51', 'r70', 'r71', 'r1019')")
    other.close()
    assert {"r50", "r51"} <= set(ids(leased)), "they are sent all the same"
    found = leased + [row for _ in range(10) for row in spool.lease(100)]
    assert spool.waiting == 0
    loss = spool.lost()
    assert (loss.rows, dict(loss.epochs)) == (3, {4: 1})
    assert len(found) + loss.rows == counts.captured
    assert "3 inferences are not in the spool file" in caplog.text
    spool.settle(found[:100])
    spool.commit()
    spool.release_all()
    assert spool.close() == len(found) - 100
    after = new_spool(path)
    after.open()
    after.settle(after.lease(1_000))
    assert after.lost().rows == 0, "those two that were being sent were settled"
    after.commit()
    assert after.close() == 0


class BadSector(FileIO):
    """A file of which one page can't be read."""

    page = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() // PAGE_BYTES == self.page - 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


def test_a_sector_that_cannot_be_read_costs_what_was_on_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    connection_of(spool).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = (path / "0.spool").read_bytes()
    leaves = [
        1 + at // PAGE_BYTES for at in range(0, len(content), PAGE_BYTES) if content[at] == 13
    ]
    monkeypatch.setattr(BadSector, "page", leaves[len(leaves) // 2])
    read = SpoolFile.read

    def failing(self: SpoolFile, *_: object, **__: object) -> None:
        monkeypatch.setattr(SpoolFile, "read", read)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = 10 | 1 << 8  # SQLITE_IOERR_READ
        raise error

    monkeypatch.setattr(SpoolFile, "read", failing)
    open_path = Path.open

    def opened(self: Path, mode: str = "r", buffering: int = -1, **options: str) -> IO[bytes]:
        if self == path / "0.spool" and buffering == 0:
            return BadSector(self)
        return open_path(self, mode, buffering, **options)

    monkeypatch.setattr(Path, "open", opened)
    found = deliver_all(spool, counts)
    assert ROWS - 10 <= len(found) < ROWS
    assert "(disk I/O error)" in caplog.text
    spool.close()


def test_a_file_that_is_cut_off_while_it_is_read_ends_nothing(path: Path) -> None:
    """One that is mapped into memory would end the process."""
    fill(path)
    pages = Pages(path / "0.spool", page_bytes=PAGE_BYTES)
    records = pages.records()
    found = [next(records) for _ in range(10)]
    with (path / "0.spool").open("r+b") as file:
        file.truncate(20 * PAGE_BYTES)
    found += list(records)
    pages.close()
    assert 20 < len(found) < ROWS
