"""The spool's files: whose they are, what is adopted, what is set aside, what is remembered."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool import file_format
from arthur_relay.buffers.spool.segments import ADOPT_SECONDS
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.errors import SpoolError
from arthur_relay.row import Row
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.buffers.spools import connection_of, crash, ids, new_spool, remember, remembered, rows_of
from tests.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_processes_that_share_a_directory_have_spools_of_their_own(path: Path) -> None:
    spools = [new_spool(path) for _ in range(3)]
    assert [spool.open() for spool in spools] == [0, 0, 0]
    for number, spool in enumerate(spools):
        spool.put(rows_of(10, 10 * number))
        spool.commit()
    for number, spool in enumerate(spools):
        assert ids(spool.lease(100)) == [f"r{n}" for n in range(10 * number, 10 * number + 10)]
        assert spool.close() == 10


def test_what_cannot_be_claimed_costs_nothing_else(path: Path) -> None:
    clock = Clock()
    spool = new_spool(path, clock)
    spool.open()
    (path / "7.spool").write_bytes(b"")
    (path / "7.lock").mkdir()  # no lock to be had there, whoever asks
    clock.now += ADOPT_SECONDS
    assert spool.adopt() == 0
    spool.close()
    for lock in ("0.lock", "7.lock"):
        shutil.rmtree(path / lock, ignore_errors=True)
    (path / "0.lock").unlink(missing_ok=True)
    (path / "0.lock").mkdir()
    with pytest.raises(SpoolError, match="can't be used"):
        new_spool(path).open()


def test_what_a_dead_process_left_is_adopted_by_a_living_one(path: Path) -> None:
    clock = Clock()
    living, dying = new_spool(path, clock), new_spool(path, clock)
    assert living.open() == dying.open() == 0
    dying.put(rows_of(10))
    dying.commit()
    clock.now += ADOPT_SECONDS
    assert living.adopt() == 0  # it is alive
    crash(dying)
    assert living.adopt() == 0  # not that soon again
    clock.now += ADOPT_SECONDS
    assert living.adopt() == 10
    assert living.rows == living.waiting == 10
    rows = living.lease(100)
    assert ids(rows) == [f"r{number}" for number in range(10)]
    living.settle(rows)
    living.commit()
    assert [file.name for file in path.iterdir() if file.suffix != ".lock"] == [
        "0.spool",
        "0.spool-shm",
        "0.spool-wal",
    ]
    assert living.close() == 0
    assert [file.suffix for file in path.iterdir()] == [".lock", ".lock"]


def write_noise(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)


def write_torn(file: Path) -> None:
    spool = new_spool(file.parent)
    spool.open()
    spool.put(rows_of(500))
    spool.commit()
    spool.close()
    content = bytearray(file.read_bytes())
    content[100:4000] = b"\xff" * 3900
    file.write_bytes(content)


def write_another_application(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()


@pytest.mark.parametrize(
    ("write", "rows"), [(write_noise, 0), (write_torn, 500), (write_another_application, 0)]
)
def test_a_damaged_or_foreign_file_is_set_aside(
    write: Callable[[Path], None], rows: int, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    write(path / "0.spool")
    content = (path / "0.spool").read_bytes()
    spool = new_spool(path)
    with caplog.at_level(logging.WARNING):
        assert spool.open() == rows
    [record] = caplog.records
    assert record.levelname == "ERROR"
    aside = path / "0-damaged-20261123T123005Z.sqlite"
    assert aside.name in record.getMessage()
    assert aside.read_bytes() == content
    spool.put(rows_of(1))
    spool.commit()
    assert spool.close() == rows + 1


def test_a_file_of_a_later_version_is_refused_and_untouched(path: Path) -> None:
    spool = new_spool(path)
    spool.open()
    spool.put(rows_of(1))
    spool.commit()
    connection_of(spool).execute(f"PRAGMA user_version = {file_format.VERSION + 1}")
    spool.close()
    before = (path / "0.spool").read_bytes()
    with pytest.raises(SpoolError, match="written by a later version of arthur-relay"):
        new_spool(path).open()
    assert (path / "0.spool").read_bytes() == before


def test_a_directory_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"file can't be used .*ARTHUR_RELAY_SPOOL_DIR"):
        new_spool(tmp_path / "file").open()


def test_files_are_for_their_owner_only(path: Path) -> None:
    spool = new_spool(path)
    spool.open()
    spool.put(rows_of(1))
    spool.commit()
    assert path.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in path.iterdir())
    spool.close()


def test_models_are_remembered_until_arthur_refuses_them(path: Path) -> None:
    first, second = new_spool(path), new_spool(path)
    first.open()
    second.open()
    remember(first, "one")
    remember(second, "two")
    crash(first)
    crash(second)
    third = new_spool(path)
    third.open()
    found = {schema.model_id: schema.types for schema in remembered(third)}
    assert found == {name: ModelSchema(name, LLM_ATTRIBUTES).types for name in ("one", "two")}
    third.schemas.forget("one")
    third.close()
    fourth = new_spool(path)
    fourth.open()
    assert [schema.model_id for schema in remembered(fourth)] == ["two"]
    fourth.close()


def test_the_oldest_row_is_known_across_files_and_ends(path: Path) -> None:
    clock = Clock()
    left, other = new_spool(path, clock), new_spool(path, clock)
    left.open()
    other.open()
    assert [left.oldest_at, other.oldest_at] == [None, None]
    start = datetime(2026, 11, 23, 12, 30, 5, tzinfo=UTC).timestamp()
    clock.now = 10.0
    assert left.store([Row("a", "one", b"{}"), Row("b", "two", b"{}")])
    clock.now = 20.0
    assert other.store([Row("c", "two", b"{}")])
    assert [left.oldest_at, other.oldest_at] == [start + 10, start + 20]
    crash(left)
    clock.now = 100.0
    found = []

    def recover(rows: int, by_model: Callable[[], Mapping[str, int]]) -> None:
        found.append((rows, by_model(), other.kept))

    assert other.adopt(recover) == 2
    assert found == [(2, {"one": 1, "two": 1}, 1)], "told before they count as kept"
    assert other.kept == 3
    assert other.oldest_at == start + 10
    by_id = {row.id: row for row in other.lease(3)}
    other.settle([by_id["a"]])
    other.commit()
    assert other.oldest_at == start + 10, "its younger neighbour came with it"
    other.settle([by_id["b"]])
    other.commit()
    assert other.oldest_at == start + 20
    other.settle([by_id["c"]])
    other.commit()
    assert [other.oldest_at] == [None]
    other.close()
