"""What a spool's file says of itself, damaged: its count, its tables, its version, its models."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool.file_format import LATER_VERSIONS, PAGE_BYTES, VERSION
from arthur_relay.buffers.spool.inspection import Condition, inspect_spools
from arthur_relay.errors import SpoolError
from arthur_relay.row import NO_HISTORY, RECOVERED, History
from arthur_relay.system.files import KEPT_ASIDE
from tests.buffers.spool.test_damage import Counts, deliver_all, rows_of
from tests.buffers.spools import connection_of, crash, ids, new_spool, remember, remembered
from tests.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def fill(path: Path, *models: str) -> None:
    spool = new_spool(path)
    spool.open()
    for model_id in models:
        remember(spool, model_id)
    assert spool.store(rows_of(ROWS))
    assert spool.close() == ROWS


def run(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path / "0.spool", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def write_at(path: Path, at: int, data: bytes) -> None:
    with (path / "0.spool").open("r+b") as file:
        file.seek(at)
        file.write(data)


def see_that_all_goes_on(path: Path, *, lost: int = 0, found: int = ROWS) -> None:
    """Start, take more rows in, crash, start, deliver all: and nothing is missing."""
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    assert counts.captured == found + lost
    for number in range(3):
        assert spool.store(rows_of(10, 1_000 + 10 * number))
    assert spool.kept == found + 30
    assert spool.trouble is None
    crash(spool)
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    assert len(deliver_all(spool, counts)) == found + 30
    assert spool.close() == 0


@pytest.mark.parametrize(
    "held",
    [
        "DELETE FROM held",
        "INSERT INTO held VALUES (1, 1)",
        "UPDATE held SET rows = 3, last_seq = 3",
        "UPDATE held SET rows = 0, last_seq = 0",
        "UPDATE held SET rows = -5",
        "UPDATE held SET rows = 'many'",
        "UPDATE held SET rows = x'00ff', last_seq = CAST(x'ff' AS TEXT)",
        "UPDATE held SET last_seq = 9223372036854775807",
        "UPDATE held SET rows = 9223372036854775807, last_seq = 9223372036854775807",
        "UPDATE held SET rows = 4611686018427387905",
    ],
)
def test_a_count_that_is_not_that_of_the_rows_costs_nothing(held: str, path: Path) -> None:
    fill(path)
    run(path, held)
    see_that_all_goes_on(path)


def test_rows_that_are_not_there_at_a_start_are_counted_as_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    run(path, "DELETE FROM rows WHERE seq IN (3, 4, 30)")
    see_that_all_goes_on(path, lost=3, found=ROWS - 3)
    assert caplog.text.count("3 inferences are not in the spool file") == 1


def test_an_old_page_of_the_count_deletes_and_overwrites_nothing(path: Path) -> None:
    """A write of a page that never came to the disk leaves the page as it was before."""
    fill(path)
    content = (path / "0.spool").read_bytes()
    with closing(sqlite3.connect(path / "0.spool")) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'held'")
    page = content[(root - 1) * PAGE_BYTES : root * PAGE_BYTES]
    spool = new_spool(path)
    spool.open()
    assert spool.store(rows_of(20, 500))
    assert spool.close() == ROWS + 20
    write_at(path, (root - 1) * PAGE_BYTES, page)
    see_that_all_goes_on(path, found=ROWS + 20)


@pytest.mark.parametrize("seq", [0, -7, 2**63 - 1])
def test_a_row_with_a_number_that_is_none_is_delivered(seq: int, path: Path) -> None:
    fill(path)
    run(path, f"UPDATE rows SET seq = {seq} WHERE seq = {5 if seq < 5 else ROWS}")
    see_that_all_goes_on(path)
    assert list(path.glob("*-damaged-*"))


def test_a_number_that_is_taken_is_damage_and_stops_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    connection_of(spool).execute(f"UPDATE rows SET seq = {ROWS + 2} WHERE seq = 7")
    new = rows_of(3, 500)
    assert spool.store(new)
    counts.captured += 3
    assert "is damaged (UNIQUE constraint failed" in caplog.text
    found = deliver_all(spool, counts)
    assert len(found) == ROWS - 1 + 3
    assert set(ids(new)) <= set(ids(found))
    assert counts.lost == 1
    assert spool.close() == 0


def test_damage_that_comes_again_at_once_is_tried_again_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    clock = Clock()
    spool = new_spool(path, clock)
    spool.open()

    def damaged(*_: object, **__: object) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    name = "arthur_relay.buffers.spool.sqlite_file.SpoolFile."
    with monkeypatch.context() as patched:
        for method in ("write", "read", "read_these"):
            patched.setattr(name + method, damaged)
        assert not spool.store(rows_of(1, 500))
        assert len(list(path.glob("*-damaged-*.sqlite"))) == 1
        assert spool.lease(5) == []
    clock.now += 10
    assert spool.store(rows_of(1, 500))
    assert len(spool.lease(100)) == ROWS + 1
    spool.release_all()
    spool.close()


@pytest.mark.parametrize("value", [2**63 - 1, 2**40, -3])
def test_a_history_that_cannot_be_is_none(value: int, path: Path) -> None:
    fill(path)
    run(path, f"UPDATE rows SET attempts = {value}, deaths = {value}, shrunk = {value}")
    spool = new_spool(path)
    spool.open()
    rows = spool.lease(2)
    assert [(row.history, row.shrunk) for row in rows] == [(NO_HISTORY, 0)] * 2
    rows[0].history = History(1 << 70, None, 0)
    spool.note(rows[:1])
    spool.commit()  # no number of ours becomes as large, and if one did it would stop nothing
    spool.release_all()
    crash(spool)


@pytest.mark.parametrize(
    "statements",
    [
        ("DROP TABLE held",),
        ("DROP TABLE models", "CREATE TABLE models (x)"),
        ("ALTER TABLE rows RENAME COLUMN crc TO crd",),
        ("PRAGMA user_version = 1",),
        ("PRAGMA user_version = 0",),
        ("PRAGMA user_version = -5",),
        (f"PRAGMA user_version = {VERSION + LATER_VERSIONS + 1}",),
        ("PRAGMA user_version = 2147352578",),
        ("PRAGMA application_id = 3",),
        ("PRAGMA writable_schema = 1", "UPDATE sqlite_master SET sql = 'nonsense'"),
        ("PRAGMA writable_schema = 1", "DELETE FROM sqlite_master WHERE name = 'rows'"),
        ("PRAGMA writable_schema = 1", "DELETE FROM sqlite_master"),
    ],
)
def test_tables_that_are_not_as_they_were_made_are_damage(
    statements: tuple[str, ...], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    run(path, *statements)
    [finding] = inspect_spools(path)
    assert finding.condition is Condition.DAMAGED
    see_that_all_goes_on(path)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("at", range(16, 72))
def test_a_byte_of_the_header_stops_nothing(at: int, path: Path) -> None:
    fill(path)
    (old,) = (path / "0.spool").read_bytes()[at : at + 1]
    lowest = 0xFF if at == 63 else old ^ 1  # the next version's number says nothing of damage
    for new in (old ^ 0xFF, old ^ 0x80, lowest):
        write_at(path, at, bytes([new]))
        counts = Counts()
        spool = new_spool(path)
        spool.open(counts.recover)
        assert counts.captured == ROWS
        assert spool.store(rows_of(1, 900)), at
        assert len(spool.lease(100)) == ROWS + 1
        spool.release_all()
        spool.close()
        for each in path.iterdir():
            each.unlink()
        fill(path)


def test_the_next_releases_files_are_left_alone(path: Path) -> None:
    fill(path)
    for version in (VERSION + 1, VERSION + 17, VERSION + LATER_VERSIONS):
        run(path, f"PRAGMA user_version = {version}")
        before = (path / "0.spool").read_bytes()
        with pytest.raises(SpoolError, match="written by a later version of arthur-relay"):
            new_spool(path).open()
        assert (path / "0.spool").read_bytes() == before


def page_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path / "0.spool")) as connection:
        ((root,),) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
        )
    return int(root)


MODELS = tuple(f"model-{number}" for number in range(40))


def test_a_damaged_page_of_models_is_damage(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(path, *MODELS)
    # The models are on several pages, under one with their places.
    write_at(path, (page_of(path, "models") - 1) * PAGE_BYTES, b"\xee" * PAGE_BYTES)
    spool = new_spool(path)
    spool.open()
    assert sorted(each.model_id for each in remembered(spool)) == sorted(MODELS)
    assert "is damaged" in caplog.text
    remember(spool, "more")
    crash(spool)
    again = new_spool(path)
    assert again.open() == ROWS
    assert len(remembered(again)) == len(MODELS) + 1
    again.close()


@pytest.mark.parametrize("call", ["remember", "forget"])
def test_models_that_are_found_damaged_in_mid_run_are_mended(
    call: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path, "one")
    clock, counts = Clock(), Counts()
    spool = new_spool(path, clock)
    spool.open(counts.recover)
    leased = spool.lease(5)
    connection = connection_of(spool)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    write_at(path, (page_of(path, "models") - 1) * PAGE_BYTES, b"\xee" * PAGE_BYTES)
    connection.execute("PRAGMA shrink_memory")
    if call == "remember":
        remember(spool, "two")
    else:
        spool.schemas.forget("one")
    clock.now += 10
    spool.commit()
    assert "is damaged" in caplog.text
    remember(spool, "three")
    assert [each.model_id for each in remembered(spool)] == ["three"]
    spool.settle(leased)
    counts.captured -= 5
    assert len(deliver_all(spool, counts)) == ROWS - 5
    spool.close()


@pytest.mark.parametrize(
    "description",
    [
        "",
        "{",
        "[]",
        "null",
        "17",
        '{"id": "one"}',
        '{"id": "another", "attributes": []}',
        '{"id": "one", "attributes": [{"name": 1e999, "position": 1e308}]}',
        "changed",
        b"\xff",
    ],
)
def test_a_model_that_is_not_as_it_was_written_misleads_nobody(
    description: str | bytes, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path, "one", "two")
    with closing(sqlite3.connect(path / "0.spool", isolation_level=None)) as connection:
        if description == "changed":
            statement = "UPDATE models SET description = replace(description, 'TEXT', 'TEST')"
            connection.execute(f"{statement} WHERE model_id = 'one'")
        else:
            statement = "UPDATE models SET description = CAST(? AS TEXT) WHERE model_id = 'one'"
            connection.execute(statement, (description,))
    spool = new_spool(path)
    spool.open()
    assert [each.model_id for each in remembered(spool)] == ["two"]
    assert caplog.text.count("is damaged") == 1
    assert [each.model_id for each in remembered(spool)] == ["two"]
    assert caplog.text.count("is damaged") == 1, "it is mended once"
    rows = spool.lease(100)
    assert {row.epoch for row in rows} == {RECOVERED}
    assert len(rows) == ROWS
    spool.release_all()
    spool.close()


def damage_again(path: Path, times: int, *, max_bytes: int = 1 << 28, first: int = 0) -> None:
    for number in range(first, first + times):
        run(path, f"PRAGMA user_version = {VERSION}", "DROP TABLE held")
        clock = Clock()
        clock.now = number // 2  # two of them in each second
        spool = new_spool(path, clock, max_bytes=max_bytes)
        assert spool.open() == ROWS
        spool.close()


def aside(path: Path) -> list[str]:
    return sorted(each.name for each in path.glob("*-damaged-*"))


def test_damaged_files_are_bounded_by_number(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(path)
    for name in ("dead-letters-damaged-20250101T000000Z.sqlite", "1-damaged-x.sqlite-wal"):
        (path / name).write_bytes(b"")
    damage_again(path, KEPT_ASIDE)
    assert "were removed" not in caplog.text
    damage_again(path, 3, first=KEPT_ASIDE)
    assert caplog.text.count("1 damaged spool files, the oldest ones, were removed") == 3
    assert aside(path) == [
        "0-damaged-20261123T123006Z-1.sqlite",
        "0-damaged-20261123T123007Z-1.sqlite",
        "0-damaged-20261123T123007Z.sqlite",
        "0-damaged-20261123T123008Z-1.sqlite",
        "0-damaged-20261123T123008Z.sqlite",
        "1-damaged-x.sqlite-wal",
        "dead-letters-damaged-20250101T000000Z.sqlite",
    ]


def test_damaged_files_are_bounded_by_their_size(path: Path) -> None:
    fill(path)
    size = (path / "0.spool").stat().st_size
    damage_again(path, 4, max_bytes=2 * size + 2 * PAGE_BYTES)
    assert len(aside(path)) == 2
    damage_again(path, 1, max_bytes=size // 2, first=4)
    assert aside(path) == ["0-damaged-20261123T123007Z.sqlite"], "the newest one is kept"


def test_a_file_that_is_found_damaged_while_it_is_taken_over_is_counted_right(path: Path) -> None:
    first, second = new_spool(path), new_spool(path)
    first.open()
    second.open()
    remember(second, "one")
    assert second.store(rows_of(ROWS))
    crash(first)
    crash(second)
    with closing(sqlite3.connect(path / "1.spool", isolation_level=None)) as connection:
        connection.execute("UPDATE models SET description = 'none'")
        connection.execute("UPDATE rows SET crc = 5 WHERE seq IN (3, 4)")
    counts = Counts()
    spool = new_spool(path)
    spool.open(counts.recover)
    assert spool.rows == ROWS - 2
    assert len(deliver_all(spool, counts)) == ROWS - 2
    assert (counts.captured, counts.lost) == (ROWS, 2)
    spool.close()
