"""The spool as a state machine, with a crash at any write, a full disk, and power cuts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from arthur_relay.buffers.spool.buffer import Spool
from arthur_relay.buffers.spool.disk_state import RETRY_SECONDS
from arthur_relay.row import RECOVERED, History, Row, RowKind
from tests.buffers.spool.sqlite_writes import Files, Writes, put_back
from tests.buffers.spools import connection_of, crash, new_spool, rows_of
from tests.clock import Clock

LetterKey = tuple[RowKind, str]
"""An inference and its ground truth have the same id."""

Held = dict[LetterKey, tuple[bytes, int]]
"""The body, and how often it was sent."""


def key(row: Row) -> LetterKey:
    return row.kind, row.id


def value(row: Row) -> tuple[bytes, int]:
    return row.body, row.history.attempts


class SpoolMachine(RuleBasedStateMachine):
    """Whatever is done, and whenever the process ends: what was committed is there, once."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.generation = 0
        self.clock = Clock()
        self.waiting: Held = {}
        self.leased: list[Row] = []
        self.put_off: set[LetterKey] = set()
        self.on_disk: Held = {}
        self.number = 0
        self.is_full = False
        self.old_writes: list[Writes] = []
        self.start()

    def teardown(self) -> None:
        crash(self.spool)
        shutil.rmtree(self.directory)

    def start(self) -> int:
        """Start on what is there; return how many rows were found."""
        path = self.directory / str(self.generation)
        self.spool = new_spool(path, self.clock)
        found = self.spool.open()
        self.writes = Writes(connection_of(self.spool), path / "0.spool")
        self.old_writes.append(self.writes)  # an old connection may still call it
        self.is_full = False
        return found

    def start_on(self, files: Files) -> int:
        """End as a crash does, and start on what it has left."""
        crash(self.spool)
        shutil.rmtree(self.directory / str(self.generation))
        self.generation += 1
        self.put_off = set()
        put_back(files, self.directory / str(self.generation))
        return self.start()

    def held(self) -> Held:
        return self.waiting | {key(row): value(row) for row in self.leased}

    def new_rows(self, kinds: list[tuple[int, bool]]) -> list[Row]:
        rows: list[Row] = []
        for size, is_truth in kinds:
            self.number += not is_truth  # ground truth is of the inference before it
            kind = RowKind.GROUND_TRUTH if is_truth else RowKind.INFERENCE
            body = bytes([self.number % 256]) * size
            row = Row(f"r{self.number}", "m", body, kind=kind)
            if key(row) not in {*self.held(), *self.on_disk, *map(key, rows)}:
                rows.append(row)
        return rows

    new = st.lists(st.tuples(st.sampled_from([1, 2_000, 40_000]), st.booleans()), max_size=8)

    @rule(kinds=new)
    def put(self, kinds: list[tuple[int, bool]]) -> None:
        for row in self.new_rows(kinds):
            self.spool.put([row])
            self.waiting[key(row)] = value(row)

    @rule(kinds=new)
    def store(self, kinds: list[tuple[int, bool]]) -> None:
        self.clock.now += RETRY_SECONDS
        rows = self.new_rows(kinds)
        if self.spool.store(rows):
            self.waiting |= {key(row): value(row) for row in rows}
        else:
            assert self.is_full
        self.wrote()

    @rule()
    def commit(self) -> None:
        self.clock.now += RETRY_SECONDS
        self.spool.commit()
        self.wrote()

    def wrote(self) -> None:
        (part,) = self.spool._segments
        if not (self.spool._memory.unwritten or part.is_to_be_written):
            self.on_disk = self.held()
        else:
            assert self.is_full  # else something may still have fitted into free pages
            if not part.file.rows and self.on_disk:
                # All that was in it was done with, so the full file made way for an empty one.
                assert not self.on_disk.keys() & self.held().keys()
                self.on_disk = {}

    @rule(write=st.integers(0, 20))
    def the_process_is_killed_at_a_write(self, write: int) -> None:
        self.clock.now += RETRY_SECONDS
        before, after = self.on_disk, self.held()
        begun = self.writes.crashes
        self.writes.wanted = lambda number: number == begun + write
        self.spool.commit()
        self.wrote()
        self.writes.wanted = lambda _number: False
        if not self.writes.left:
            return  # the commit did not write so often
        count = self.start_on(self.writes.left[0])
        rows = self.spool.lease(1_000)
        self.spool.release_all()
        found = {key(row): value(row) for row in rows}
        assert len(rows) == count
        assert {row.epoch for row in rows} <= {RECOVERED}
        assert found in (before, after)
        self.waiting, self.leased, self.on_disk = found, [], dict(found)

    @rule(limit=st.integers(1, 12))
    def lease(self, limit: int) -> None:
        rows = self.spool.lease(limit)
        assert len(rows) == min(limit, len(self.waiting) - len(self.put_off))
        self.has_leased(rows)

    @rule(limit=st.integers(1, 12), most_bytes=st.sampled_from([1, 2_500, 90_000]))
    def lease_bytes(self, limit: int, most_bytes: int) -> None:
        rows = self.spool.lease(limit, most_bytes=most_bytes)
        sizes = [len(row.body) for row in rows]  # old ones come first, whichever was read last
        assert sum(sizes) - max(sizes, default=0) < most_bytes, "one row too many"
        if sum(len(row.body) for row in rows) < most_bytes:
            assert len(rows) == min(limit, len(self.waiting) - len(self.put_off))
        self.has_leased(rows)

    def has_leased(self, rows: list[Row]) -> None:
        for row in rows:
            assert key(row) not in self.put_off
            assert value(row) == self.waiting.pop(key(row))
        self.leased += rows

    @rule(count=st.integers(1, 4))
    def put_some_off(self, count: int) -> None:
        rows, self.leased = self.leased[:count], self.leased[count:]
        self.spool.put_off(rows)
        self.waiting |= {key(row): value(row) for row in rows}
        self.put_off |= {key(row) for row in rows}

    @rule(limit=st.integers(1, 4))
    def lease_some_that_were_put_off(self, limit: int) -> None:
        rows = self.spool.lease_put_off("m", limit)
        assert len(rows) == min(limit, len(self.put_off))
        assert self.put_off >= {key(row) for row in rows}
        self.put_off -= {key(row) for row in rows}
        assert self.spool.has_put_off("m") == bool(self.put_off)
        self.has_leased(rows)

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.sampled_from(self.leased), unique=True)) if self.leased else []
        self.spool.settle([*rows, *rows])  # settling again changes nothing
        self.leased = [row for row in self.leased if row not in rows]

    @precondition(lambda self: self.leased)
    @rule()
    def replace(self) -> None:
        old = self.leased.pop()
        new = Row(old.id, old.model_id, b"cut", old.epoch, old.shrunk + 1, old.kind, old.history)
        self.spool.replace(old, new)
        self.leased.append(new)

    @rule()
    def evict(self) -> None:
        row = self.spool.evict()
        if row is None:
            # Until it is written again, only what is in memory makes room.
            assert self.spool._disk.is_failing or not self.waiting
        else:
            assert value(row) == self.waiting.pop(key(row))
            self.put_off.discard(key(row))

    @precondition(lambda self: self.leased)
    @rule()
    def note(self) -> None:
        row = self.leased[0]
        row.history = History(row.history.attempts + 1, 5.0)
        self.spool.note([row])

    @rule()
    def release_all(self) -> None:
        self.spool.release_all()
        self.waiting |= {key(row): value(row) for row in self.leased}
        self.leased, self.put_off = [], set()

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
        assert self.start_on(self.writes.files()) == len(self.on_disk)
        self.waiting, self.leased = dict(self.on_disk), []

    @rule()
    def the_process_ends_well(self) -> None:
        self.the_disk_has_room_again()
        held = self.held()
        self.put_off = set()
        assert self.spool.close() == len(held)
        assert self.start() == len(held)
        self.waiting, self.leased, self.on_disk = held, [], dict(held)

    @invariant()
    def counts(self) -> None:
        assert self.spool.waiting == len(self.waiting)
        assert self.spool.rows == len(self.waiting) + len(self.leased)
        assert bool(self.spool.size) == bool(self.spool.rows)


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_full_file_of_which_all_is_done_with_makes_way_for_an_empty_one() -> None:
    machine = SpoolMachine()
    try:
        machine.put(kinds=[(1, False)])
        machine.commit()
        machine.evict()
        machine.the_disk_becomes_full()
        machine.put(kinds=[(40_000, False)])
        machine.commit()
        machine.counts()
        machine.the_process_is_killed()
        machine.counts()
        assert machine.on_disk == {}
    finally:
        machine.teardown()


def rows_left(files: Files, directory: Path) -> list[str]:
    """Return the ids of what a spool finds in these files, oldest first."""
    put_back(files, directory)
    spool = new_spool(directory)
    count = spool.open()
    found = [row.id for row in spool.lease(count + 1)]
    spool.release_all()
    crash(spool)
    assert len(found) == count
    return found


def turns(spool: Spool) -> list[list[str]]:
    """Do what a worker does in four turns; return what has to be on disk before and after each.

    The log is written back, rows are removed, and space is given back in the course of it.
    """
    states: list[list[str]] = [[]]
    for number in range(4):
        done = spool.lease(900)
        spool.settle(done)
        kept = states[-1][len(done) :]
        new = rows_of(1_200 if number < 3 else 0, 2_000 * number, size=2_500)
        spool.put(new)
        spool.commit()
        states.append(kept + [row.id for row in new])
    while rows := spool.lease(900):
        spool.settle(rows)
        spool.commit()
        states.append(states[-1][len(rows) :])
    return states


@pytest.mark.parametrize("power_safe", [False, True])
def test_a_crash_at_any_write_leaves_all_of_a_commit_or_nothing(
    power_safe: bool, tmp_path: Path
) -> None:
    spool = new_spool(tmp_path / "spool", power_safe=power_safe)
    spool.open()
    writes = Writes(connection_of(spool), tmp_path / "spool" / "0.spool")
    writes.wanted = lambda number: number % 151 == 0
    states = turns(spool)
    crash(spool)
    assert len(writes.left) > 20
    reached = 0
    for number, files in enumerate(writes.left):
        found = rows_left(files, tmp_path / str(number))
        while states[reached] != found:
            reached += 1  # an IndexError says that it is none of them, or one that was before
    assert reached >= len(states) - 2


def power_cuts(spool: Spool, directory: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Return what has to be on disk after each commit, and what is when the power is cut then."""
    path = directory / "spool" / "0.spool"
    writes = Writes(connection_of(spool), path)
    synced = writes.synced = {
        name: data for name, data in writes.files().items() if not name.endswith("-shm")
    }
    commit, safe = spool.commit, []

    def and_then_the_power_is_cut() -> None:
        commit()
        safe.append(dict(synced))

    spool.commit = and_then_the_power_is_cut  # type: ignore[method-assign] # watched
    states = turns(spool)
    crash(spool)
    return states, [rows_left(files, directory / str(at)) for at, files in enumerate(safe)]


def test_a_power_cut_after_a_commit_loses_nothing_of_it(tmp_path: Path) -> None:
    spool = new_spool(tmp_path / "spool", power_safe=True)
    spool.open()
    states, found = power_cuts(spool, tmp_path)
    assert found == states[1:]


def test_without_durability_for_it_a_power_cut_loses_the_last_commits(tmp_path: Path) -> None:
    spool = new_spool(tmp_path / "spool", power_safe=False)
    spool.open()
    states, found = power_cuts(spool, tmp_path)
    for at, rows in enumerate(found):  # the file is whole, and as it was
        assert rows in states[: at + 2]
    assert found != states[1:]
