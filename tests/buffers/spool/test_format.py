"""The spool's format: what an older version wrote is taken over; what is known of rows stays."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool.file_format import VERSION
from arthur_relay.row import NO_HISTORY, RECOVERED, History, Row, RowKind
from tests.buffers.spool.sqlite_writes import Writes, put_back
from tests.buffers.spools import connection_of, crash, ids, new_spool, remember, rows_of
from tests.buffers.test_overflow_buffer import new_spill
from tests.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

FIRST = """
PRAGMA page_size = 16384;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE rows (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    shrunk INTEGER NOT NULL,
    stored_at REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE models (model_id TEXT PRIMARY KEY, description TEXT NOT NULL);
CREATE TABLE held (rows INTEGER NOT NULL, last_seq INTEGER NOT NULL);
INSERT INTO held VALUES (0, 0);
PRAGMA application_id = 1095914329;
PRAGMA user_version = 1;
COMMIT;
"""
"""The statements that the first version made its files with, as they were."""

OLD = [
    Row("a", "one", b'{"a": 1}', RECOVERED, 0, RowKind.INFERENCE),
    Row("a", "one", b'{"thumbs_up": true}', RECOVERED, 0, RowKind.GROUND_TRUTH),
    Row("b", "two", b"x" * 40_000, RECOVERED, 2, RowKind.INFERENCE),
]


def make_first_version(path: Path) -> None:
    """Make a file as the first version did, with rows in it, one of which is gone."""
    path.mkdir(mode=0o700)
    connection = sqlite3.connect(path / "0.spool", isolation_level=None)
    connection.executescript(FIRST)
    for seq, row in enumerate(OLD, 7):
        connection.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (seq, row.id, row.model_id, row.kind.value, 5, row.shrunk, 1_000.0 + seq, row.body),
        )
    connection.execute("UPDATE held SET rows = 3, last_seq = 9")
    description = '{"id": "one", "attributes": []}'
    connection.execute("INSERT INTO models VALUES ('one', ?)", (description,))
    connection.close()


def test_a_file_of_the_first_version_is_taken_over(path: Path) -> None:
    make_first_version(path)
    spool = new_spool(path)
    assert spool.open() == 3
    connection = connection_of(spool)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,) == (2,)
    assert spool.oldest_at == 1007.0
    assert spool._segments[0].file.models() == {"one": '{"id": "one", "attributes": []}'}
    found = spool.lease(10)
    assert [(r.id, r.model_id, r.body, r.epoch, r.shrunk, r.kind) for r in found] == [
        (r.id, r.model_id, r.body, r.epoch, r.shrunk, r.kind) for r in OLD
    ]
    assert all(row.history is NO_HISTORY for row in found)
    # All that is done to rows is done to these as to any other.
    found[0].history = History(3, 17.5, 1)
    spool.note(found[:1])
    spool.settle(found[1:2])
    remember(spool, "three")
    spool.put(rows_of(2))
    spool.commit()
    spool.release_all()
    assert spool.close() == 4
    again = new_spool(path)
    assert again.open() == 4
    rows = again.lease(10)
    assert ids(rows) == ["a", "b", "r0", "r1"]
    assert [row.history for row in rows] == [History(3, 17.5, 1), *[NO_HISTORY] * 3]
    again.close()


def test_a_crash_while_it_is_taken_over_leaves_the_old_file_or_the_new_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_first_version(path)
    connect = sqlite3.connect
    watched: list[Writes] = []

    def connected(*arguments: object, **options: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload] # passed on
        connection.execute("SELECT * FROM held").fetchall()  # the log is open from now on
        writes = Writes(connection, path / "0.spool")
        writes.wanted = lambda _number: True
        watched.append(writes)
        return connection

    with monkeypatch.context() as patched:
        patched.setattr("arthur_relay.buffers.spool.sqlite_file.sqlite3.connect", connected)
        spool = new_spool(path)
        assert spool.open() == 3
        crash(spool)
    (writes,) = watched
    assert len(writes.left) > 5
    for number, files in enumerate(writes.left):
        put_back(files, tmp_path / str(number))
        after = new_spool(tmp_path / str(number))
        assert after.open() == 3
        assert ids(after.lease(10)) == ["a", "a", "b"]
        crash(after)


def test_histories_outlive_the_process_and_nothing_is_written_for_others(path: Path) -> None:
    spool = new_spool(path)
    spool.open()
    fresh = rows_of(3)
    fresh[0].history = History(attempts=1)
    spool.put(fresh)  # one that was moved here with what is known of it
    spool.commit()
    leased = spool.lease(3)
    stranger = Row("s", "m", b"{}", history=History(9))
    leased[1].history = History(2, 12.25, 0)
    leased[1].history = History(3, 12.25, 1)
    spool.note([leased[1], stranger])
    assert list(spool._segments[0].noted) == [2]
    crash(spool)  # it was not committed
    second = new_spool(path)
    second.open()
    rows = second.lease(3)
    assert [row.history for row in rows] == [History(1), NO_HISTORY, NO_HISTORY]
    assert rows[1].history is NO_HISTORY
    rows[1].history = History(3, 12.25, 1)
    second.note(rows[1:2])
    second.commit()
    rows[2].history = History(0, None, 1)
    second.note(rows[2:], at_once=True)
    assert not second._segments[0].noted
    second.settle(rows[:1])
    second.release_all()
    assert [row.history for row in second.lease(2)] == [History(3, 12.25, 1), History(0, None, 1)]
    crash(second)
    third = new_spool(path)
    third.open()
    found = third.lease(3)
    assert [row.history for row in found] == [
        History(1),
        History(3, 12.25, 1),
        History(0, None, 1),
    ]
    third.settle(found)
    third.commit()
    third.close()


@pytest.mark.parametrize("column", ["attempts", "since", "deaths"])
@pytest.mark.parametrize("value", ["text", b"", b"\xff" * 9])
def test_a_history_that_nobody_wrote_is_none(column: str, value: object, path: Path) -> None:
    spool = new_spool(path)
    spool.open()
    spool.put(rows_of(2))
    spool.commit()
    spool.close()
    connection = sqlite3.connect(path / "0.spool")
    connection.execute(f"UPDATE rows SET {column} = ?, stored_at = ?", (value, value))
    connection.commit()
    connection.close()
    again = new_spool(path)
    assert again.open() == 2
    assert again.oldest_at is None
    assert [row.history for row in again.lease(2)] == [NO_HISTORY] * 2
    again.release_all()
    again.close()


def test_a_history_of_a_row_that_is_not_written_yet_goes_with_it(path: Path) -> None:
    spool = new_spool(path)
    spool.open()
    spool.put(rows_of(2))
    rows = spool.lease(2)
    rows[0].history = History(1, 2.0, 3)
    spool.note(rows, at_once=True)
    crash(spool)
    again = new_spool(path)
    again.open()
    assert [row.history for row in again.lease(2)] == [History(1, 2.0, 3), NO_HISTORY]
    again.close()


def test_a_disk_that_fails_costs_no_more_than_the_note(path: Path) -> None:
    clock = Clock()
    spool = new_spool(path, clock)
    spool.open()
    spool.put(rows_of(1))
    spool.commit()
    (row,) = spool.lease(1)
    row.history = History(5)
    connection_of(spool).execute("PRAGMA query_only = 1")
    spool.note([row], at_once=True)
    connection_of(spool).execute("PRAGMA query_only = 0")
    clock.now += 10
    spool.commit()
    crash(spool)
    again = new_spool(path)
    again.open()
    assert [each.history for each in again.lease(1)] == [History(5)]
    again.close()


def test_rows_that_go_from_memory_to_the_disk_keep_their_histories(path: Path) -> None:
    spill, _ = new_spill(path)
    spill.put(rows_of(2))
    rows = spill.lease(2)
    rows[1].history = History(4, 1.5, 2)
    spill.as_buffer().journal.note(rows)
    assert spill.close() == 2
    again = new_spool(path)
    again.open()
    assert [row.history for row in again.lease(2)] == [NO_HISTORY, History(4, 1.5, 2)]
    again.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"
