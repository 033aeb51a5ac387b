"""A spool's log that was damaged: what it has is delivered, and what is missing is counted."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool.file_format import PAGE_BYTES
from arthur_relay.system.sqlite_pages import has_unread_commits
from tests.buffers.spool.test_damage import Counts, deliver_all, rows_of
from tests.buffers.spools import crash, new_spool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FRAME_BYTES = PAGE_BYTES + 24
IN_FILE, IN_LOG = 60, 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def leave(path: Path, *, in_log: int = IN_LOG) -> Path:
    """Leave what a killed process does: rows in the file, and more in its log. Returns the log."""
    spool = new_spool(path.with_name("running"))
    spool.open()
    assert spool.store(rows_of(IN_FILE))
    assert spool.close() == IN_FILE
    spool.open()
    for number in range(in_log):
        assert spool.store(rows_of(1, IN_FILE + number))
    path.mkdir(mode=0o700)
    for ending in ("", "-wal"):
        name = f"0.spool{ending}"
        shutil.copy(path.with_name("running") / name, path / name)
    crash(spool)
    return path / "0.spool-wal"


def overwrite(log: Path, at: int, size: int) -> None:
    with log.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * size)


def found_after(path: Path, *, unknown: int = 0) -> int:
    """Return how many rows a start delivers; the others are counted as lost."""
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    found = deliver_all(spool, counts)
    assert counts.captured == IN_FILE + IN_LOG - unknown
    assert spool.close() == 0
    return len(found)


@pytest.mark.parametrize(
    ("at", "size"),
    [(0, 32), (0, 1), (8, 4), (16, 8), (20, 1), (24, 8), (28, 2)],
    ids=["all", "magic", "page size", "salts", "a salt", "sums", "a sum"],
)
def test_a_log_with_a_damaged_head_loses_nothing(
    at: int, size: int, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overwrite(leave(path), at, size)
    assert found_after(path) == IN_FILE + IN_LOG
    assert "its log is not whole" in caplog.text
    assert list(path.glob("*-damaged-*.sqlite-wal")), "the log is kept with its file"


def test_a_sector_at_the_beginning_costs_what_was_on_it(path: Path) -> None:
    log = leave(path)
    overwrite(log, 0, 4096)
    assert found_after(path) >= IN_FILE + IN_LOG - 1


@pytest.mark.parametrize("part", ["salts", "page", "sums", "content"])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_damaged_frame_hides_none_behind_it(part: str, number: int, path: Path) -> None:
    at, size = {"page": (0, 4), "salts": (8, 8), "sums": (16, 8), "content": (24, 4096)}[part]
    overwrite(leave(path), 32 + number * FRAME_BYTES + at, size)
    assert found_after(path) >= IN_FILE + IN_LOG - 1


def test_a_last_commit_that_is_not_whole_is_none_as_after_a_crash(path: Path) -> None:
    log = leave(path)
    frames = (log.stat().st_size - 32) // FRAME_BYTES
    overwrite(log, 0, 32)
    overwrite(log, 32 + (frames - 1) * FRAME_BYTES + 24, 100)
    assert found_after(path, unknown=1) == IN_FILE + IN_LOG - 1


def test_a_log_of_one_commit_with_a_damaged_head_loses_nothing(path: Path) -> None:
    overwrite(leave(path, in_log=1), 0, 32)
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    assert len(deliver_all(spool, counts)) == IN_FILE + 1
    spool.close()


def test_a_damaged_file_keeps_its_damaged_log(path: Path) -> None:
    """Nothing that SQLite can open is left, and closing it would remove the log."""
    log = leave(path)
    overwrite(path / "0.spool", 0, 100)
    overwrite(log, 32 + 9 * FRAME_BYTES + 24, 100)
    assert found_after(path) == IN_FILE + IN_LOG


@pytest.mark.parametrize("ruin", [lambda log: overwrite(log, 0, 16), lambda log: None])
def test_a_log_that_is_in_the_file_is_not_missed(ruin: Callable[[Path], None], path: Path) -> None:
    """A crash while the log is begun anew may leave half a head, and frames that are done with."""
    log = leave(path)
    spool = new_spool(path)
    spool.open()
    part = spool._segments[0].file
    part._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    for name in ("0.spool", "0.spool-wal"):
        shutil.copy(path / name, path / f"{name}.copy")
    crash(spool)
    for name in ("0.spool", "0.spool-wal"):
        (path / f"{name}.copy").rename(path / name)
    ruin(log)
    assert found_after(path) == IN_FILE + IN_LOG
    assert not list(path.glob("*-damaged-*")), "it is whole"


def test_the_frames_of_an_earlier_round_are_no_damage(path: Path) -> None:
    spool = new_spool(path)
    spool.open()
    file = spool._segments[0].file
    for number in range(30):
        assert spool.store(rows_of(1, number))
    file._connection.execute("PRAGMA wal_checkpoint(RESTART)")
    assert spool.store(rows_of(1, 30))
    log = path / "0.spool-wal"
    assert log.stat().st_size > 20 * FRAME_BYTES
    for frames in (3, None):
        assert not has_unread_commits(file.path, page_bytes=PAGE_BYTES, read_frames=frames)
    crash(spool)
