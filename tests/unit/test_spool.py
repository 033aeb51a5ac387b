"""The spool: as a state machine with crashes and a full disk, and file by file."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from arthur_relay.buffers import spool_file
from arthur_relay.buffers.spool import ADOPT_SECONDS, RETRY_SECONDS, UNWRITTEN_BYTES, Spool
from arthur_relay.buffers.spool_directory import SpoolDirectory
from arthur_relay.errors import SpoolError
from arthur_relay.row import RECOVERED, Row
from arthur_relay.schema import ModelSchema
from arthur_relay.testing import LLM_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def new_spool(path: Path, clock: Clock | None = None, *, max_bytes: int = 256 * MIB) -> Spool:
    return Spool(
        SpoolDirectory(path),
        max_bytes=max_bytes,
        power_safe=False,
        monotonic=clock or Clock(),
        utc_now=lambda: datetime(2026, 11, 23, 12, 30, 5, tzinfo=UTC),
    )


def connection_of(spool: Spool) -> sqlite3.Connection:
    return spool._parts[0].file._connection


def crash(spool: Spool) -> None:
    """Let go of everything as the end of a process does: nothing is written any more."""
    for part in spool._parts:
        part.file.close()
    spool.abandon()


def rows_of(count: int, first: int = 0, *, size: int = 100) -> list[Row]:
    return [Row(f"r{number}", "m", b"x" * size, epoch=3) for number in range(first, first + count)]


def ids(rows: list[Row]) -> list[str]:
    return [row.id for row in rows]


class SpoolMachine(RuleBasedStateMachine):
    """Whatever is done, and whenever the process ends: what was committed is there, once."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.generation = 0
        self.clock = Clock()
        self.spool = new_spool(self.directory / "0", self.clock)
        self.spool.open()
        self.waiting: dict[str, bytes] = {}
        self.leased: list[Row] = []
        self.on_disk: dict[str, bytes] = {}
        self.number = 0
        self.is_full = False

    def teardown(self) -> None:
        crash(self.spool)
        shutil.rmtree(self.directory)

    def held(self) -> dict[str, bytes]:
        return self.waiting | {row.id: row.body for row in self.leased}

    @rule(sizes=st.lists(st.sampled_from([1, 2_000, 40_000]), max_size=8))
    def put(self, sizes: list[int]) -> None:
        for size in sizes:
            self.number += 1
            row = Row(f"r{self.number}", "m", bytes([self.number % 256]) * size)
            self.spool.put([row])
            self.waiting[row.id] = row.body

    @rule()
    def commit(self) -> None:
        self.clock.now += RETRY_SECONDS
        self.spool.commit()
        if not self.is_full:
            self.on_disk = self.held()
        elif self.spool.kept != len(self.on_disk):
            self.on_disk = self.held()  # it fitted into free pages

    @rule(limit=st.integers(1, 12))
    def lease(self, limit: int) -> None:
        rows = self.spool.lease(limit)
        assert len(rows) == min(limit, len(self.waiting))
        for row in rows:
            assert row.body == self.waiting.pop(row.id)
        self.leased += rows

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.sampled_from(self.leased), unique=True)) if self.leased else []
        self.spool.settle([*rows, *rows])  # settling again changes nothing
        self.leased = [row for row in self.leased if row not in rows]

    @precondition(lambda self: self.leased)
    @rule()
    def replace(self) -> None:
        old = self.leased.pop()
        new = Row(old.id, old.model_id, b"cut", old.epoch, old.shrunk + 1)
        self.spool.replace(old, new)
        self.leased.append(new)

    @rule()
    def evict(self) -> None:
        row = self.spool.evict()
        if row is None:
            assert self.is_full or not self.waiting
        else:
            assert row.body == self.waiting.pop(row.id)

    @rule()
    def release_all(self) -> None:
        self.spool.release_all()
        self.waiting |= {row.id: row.body for row in self.leased}
        self.leased = []

    @rule()
    def the_disk_becomes_full(self) -> None:
        connection = connection_of(self.spool)
        ((pages,),) = connection.execute("PRAGMA page_count")
        connection.execute(f"PRAGMA max_page_count = {pages}")
        self.is_full = True

    @rule()
    def the_disk_has_room_again(self) -> None:
        connection_of(self.spool).execute("PRAGMA max_page_count = 1000000")
        self.is_full = False

    @rule()
    def the_process_is_killed(self) -> None:
        # The files as they are now are what another process would find.
        before = self.directory / str(self.generation)
        self.generation += 1
        after = self.directory / str(self.generation)
        shutil.copytree(before, after)
        crash(self.spool)
        shutil.rmtree(before)
        self.spool = new_spool(after, self.clock)
        assert self.spool.open() == len(self.on_disk)
        self.waiting, self.leased, self.is_full = dict(self.on_disk), [], False

    @rule()
    def the_process_ends_well(self) -> None:
        self.the_disk_has_room_again()
        held = self.held()
        assert self.spool.close() == len(held)
        self.spool = new_spool(self.directory / str(self.generation), self.clock)
        assert self.spool.open() == len(held)
        self.waiting, self.leased, self.on_disk = held, [], dict(held)

    @invariant()
    def counts(self) -> None:
        assert self.spool.waiting == len(self.waiting)
        assert self.spool.rows == len(self.waiting) + len(self.leased)
        assert bool(self.spool.size) == bool(self.spool.rows)


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


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


@pytest.mark.parametrize("write", [write_noise, write_torn, write_another_application])
def test_a_damaged_or_foreign_file_is_set_aside(
    write: Callable[[Path], None], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    write(path / "0.spool")
    content = (path / "0.spool").read_bytes()
    spool = new_spool(path)
    with caplog.at_level(logging.WARNING):
        assert spool.open() == 0
    [record] = caplog.records
    assert record.levelname == "ERROR"
    aside = path / "0-damaged-20261123T123005Z.sqlite"
    assert aside.name in record.getMessage()
    assert aside.read_bytes() == content
    spool.put(rows_of(1))
    spool.commit()
    assert spool.close() == 1


def test_a_file_of_a_later_version_is_refused_and_untouched(path: Path) -> None:
    spool = new_spool(path)
    spool.open()
    spool.put(rows_of(1))
    spool.commit()
    connection_of(spool).execute(f"PRAGMA user_version = {spool_file.VERSION + 1}")
    spool.close()
    before = (path / "0.spool").read_bytes()
    with pytest.raises(SpoolError, match="written by a later version of arthur-relay"):
        new_spool(path).open()
    assert (path / "0.spool").read_bytes() == before


def test_a_directory_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"file can't be used .*ARTHUR_RELAY_SPOOL_DIR"):
        new_spool(tmp_path / "file")


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
    spool.commit()
    assert spool.kept == 209
    assert "written again" in caplog.records[-1].getMessage()
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
    file, committed = spool._parts[0].file, []

    class Interrupted:
        """Has the worker commit while another thread, which asks what is kept, has half of it."""

        @property
        def rows(self) -> int:
            rows = file.rows
            spool._parts[0].file = file
            spool.commit()
            committed.append(file.rows)
            return rows

    monkeypatch.setattr(spool._parts[0], "file", Interrupted())
    assert spool.kept <= 6
    assert committed == [6]
    assert spool.kept == 6
    spool.close()


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
    first.remember(ModelSchema("one", LLM_ATTRIBUTES))
    second.remember(ModelSchema("two", LLM_ATTRIBUTES))
    crash(first)
    crash(second)
    third = new_spool(path)
    third.open()
    found = {schema.model_id: schema.types for schema in third.schemas()}
    assert found == {name: ModelSchema(name, LLM_ATTRIBUTES).types for name in ("one", "two")}
    third.forget("one")
    third.close()
    fourth = new_spool(path)
    fourth.open()
    assert [schema.model_id for schema in fourth.schemas()] == ["two"]
    fourth.close()
